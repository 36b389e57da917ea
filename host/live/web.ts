/**
 * The lab's web server: the page, its data once a second as server-sent events, and `/metrics`.
 * It only shows; whatever changes something goes through the control socket.
 *
 * It listens on loopback unless it is told otherwise, and answers only to names and addresses of
 * loopback or to the address it listens on, so that no foreign page can read it by way of a name
 * that resolves here. Bounded: 32 pages at once; a page that does not read is cut off at 1 MiB.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { FlowplaneError } from "../errors.ts";
import { readChartLibrary } from "../page/library.ts";
import type { EventLog } from "./events.ts";
import type { Scrape } from "./metrics.ts";
import { livePage } from "./page.ts";
import { History, type LiveSnapshot } from "./snapshot.ts";

export interface WebOptions {
  /** Default "127.0.0.1". */
  address?: string;
  /** 0 takes any that is free. */
  port: number;
  snapshot: () => Promise<LiveSnapshot>;
  scrape: () => Promise<Scrape>;
  events: EventLog;
  intervalMs?: number;
}

const FOLLOWERS_MAX = 32;
const UNREAD_BYTES_MAX = 1_048_576;
const EVENTS_SHOWN = 50;

export class WebServer {
  readonly #options: WebOptions;
  readonly #server: Server;
  readonly #history = new History();
  readonly #followers = new Set<ServerResponse>();
  readonly #unfollow: () => void;
  #timer: NodeJS.Timeout | undefined;
  #latest: LiveSnapshot | undefined;

  private constructor(options: WebOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: Error) => {
        if (!response.headersSent) response.writeHead(500, { "content-type": "text/plain" });
        response.end(`${error.message}\n`);
      });
    });
    this.#unfollow = options.events.follow((event) => this.#tell("event", event));
  }

  /** @throws FlowplaneError when the address cannot be had */
  static async listen(options: WebOptions): Promise<WebServer> {
    const web = new WebServer(options);
    const { address = "127.0.0.1", port, intervalMs = 1000 } = options;
    await new Promise<void>((resolve, reject) => {
      web.#server.once("error", (error) => {
        reject(new FlowplaneError(`http: ${error.message}`, { cause: error }));
      });
      web.#server.listen(port, address, resolve);
    });
    web.#timer = setInterval(() => void web.#sample(), intervalMs);
    await web.#sample();
    return web;
  }

  get port(): number {
    const bound = this.#server.address();
    return typeof bound === "object" && bound ? bound.port : 0;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#unfollow();
    for (const follower of this.#followers) follower.destroy();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #sample(): Promise<void> {
    try {
      this.#latest = await this.#options.snapshot();
    } catch {
      // The data plane is ending; what was known stays on the page.
      return;
    }
    this.#history.add(this.#latest);
    this.#tell("snapshot", { snapshot: this.#latest, sample: this.#history.samples.at(-1) });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const send = (status: number, type: string, text: string) => {
      response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(text);
    };
    if (!this.#isOwnName(request.headers.host ?? "")) {
      return send(421, "text/plain", "not a name of this lab\n");
    }
    // Node leaves the body out of what answers HEAD.
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return send(405, "text/plain", "only GET and HEAD\n");
    }
    const [path] = (request.url ?? "/").split("?");
    switch (path) {
      case "/":
        response.setHeader("content-security-policy", CONTENT_POLICY);
        return send(200, "text/html; charset=utf-8", page());
      case "/metrics": {
        const { contentType, text } = await this.#options.scrape();
        return send(200, contentType, text);
      }
      case "/snapshot.json":
        return send(200, "application/json", JSON.stringify(await this.#options.snapshot()));
      case "/events":
        return this.#follow(response);
      default:
        return send(404, "text/plain", "not found\n");
    }
  }

  #isOwnName(host: string): boolean {
    const name = host.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
    const own = this.#options.address ?? "127.0.0.1";
    return ["localhost", "127.0.0.1", "::1", own].includes(name);
  }

  #follow(response: ServerResponse): void {
    if (this.#followers.size >= FOLLOWERS_MAX) {
      response.writeHead(503, { "content-type": "text/plain" }).end("too many pages\n");
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    if (response.req.method === "HEAD") {
      response.end();
      return;
    }
    this.#followers.add(response);
    response.on("close", () => this.#followers.delete(response));
    write(response, "history", {
      samples: this.#history.samples,
      snapshot: this.#latest,
      events: this.#options.events.latest(EVENTS_SHOWN),
    });
  }

  #tell(kind: string, data: unknown): void {
    for (const follower of this.#followers) write(follower, kind, data);
  }
}

function write(response: ServerResponse, kind: string, data: unknown): void {
  response.write(`event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`);
  if (response.writableLength > UNREAD_BYTES_MAX) response.destroy();
}

const CONTENT_POLICY =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; " +
  "img-src data:";

let made: string | undefined;

/** The page is the same for everyone, and made once. */
function page(): string {
  made ??= livePage(readChartLibrary());
  return made;
}
