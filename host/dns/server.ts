/**
 * A VPC's resolver on its sockets: UDP and TCP (RFC 1035, 7766) on one address and port.
 * What to answer is decided in answer.ts; this file only moves messages.
 *
 * Bounded: 64 TCP connections (the next is closed at once), 10 s without a byte end one, and one
 * message is in work per connection, so a client that does not read is not read from either.
 */

import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, isIPv6, type Server, type Socket } from "node:net";
import { FlowplaneError } from "../errors.ts";
import { type Asked, answer, type Codec, encoded, offeredBytes } from "./answer.ts";
import { type Forward, framed } from "./forward.ts";
import type { DnsView } from "./view.ts";

export interface DnsServerOptions {
  address: string;
  /** Default 53; 0 takes any that is free. */
  port?: number;
  view: DnsView;
  /** Availability zone of a client's address. */
  zoneOf?: (address: string) => string | undefined;
  /** Who is asked for names outside the view; without it they are refused. */
  forward?: Forward | undefined;
  random?: () => number;
}

/** Messages by what became of them. */
export interface DnsCounters {
  queries: number;
  responses: number;
  truncated: number;
  forwarded: number;
  ignored: number;
}

const CONNECTIONS_MAX = 64;
const IDLE_MS = 10_000;
const SERVFAIL = 2;

export class DnsServer {
  /** Read for every query: put another one here and the next answer comes from it. */
  view: DnsView;
  readonly counters: DnsCounters = {
    queries: 0,
    responses: 0,
    truncated: 0,
    forwarded: 0,
    ignored: 0,
  };
  readonly #codec: Codec;
  readonly #options: DnsServerOptions;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #connections = new Set<Socket>();

  private constructor(codec: Codec, options: DnsServerOptions) {
    this.#codec = codec;
    this.#options = options;
    this.view = options.view;
    this.#udp = createSocket(isIPv6(options.address) ? "udp6" : "udp4");
    this.#tcp = createServer({ allowHalfOpen: true }, (socket) => {
      void this.#serve(socket);
    });
    this.#tcp.maxConnections = CONNECTIONS_MAX;
  }

  /** Listens. @throws FlowplaneError when the codec is not installed or the address is taken */
  static async listen(options: DnsServerOptions): Promise<DnsServer> {
    const server = new DnsServer(await loadCodec(), options);
    try {
      await server.#listen();
    } catch (error) {
      await server.close();
      throw new FlowplaneError(`dns: ${(error as Error).message}`, { cause: error });
    }
    return server;
  }

  get port(): number {
    return this.#udp.address().port;
  }

  async #listen(): Promise<void> {
    const { address, port = 53 } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#tcp.once("error", reject).listen(port, address, resolve);
    });
    const bound = this.#tcp.address();
    const chosen = typeof bound === "object" && bound ? bound.port : port;
    await new Promise<void>((resolve, reject) => {
      this.#udp.once("error", reject).bind(chosen, address, resolve);
    });
    this.#udp.on("error", () => this.counters.ignored++);
    this.#udp.on("message", (message, { address: client, port: clientPort }) => {
      void this.#respond(message, client, "udp").then((response) => {
        // A client that has gone is no error of ours.
        if (response) this.#udp.send(response, clientPort, client, () => undefined);
      });
    });
  }

  async #serve(socket: Socket): Promise<void> {
    this.#connections.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#connections.delete(socket));
    const client = socket.remoteAddress ?? "";
    try {
      for await (const message of messages(socket)) {
        const response = await this.#respond(message, client, "tcp");
        if (response === undefined) continue;
        if (!socket.write(framed(response))) {
          await new Promise<void>((resolve) => {
            socket.once("drain", resolve).once("close", resolve);
          });
        }
      }
    } catch {
      // The connection broke; the close event has done the rest.
    }
    socket.end();
  }

  async #respond(
    message: Uint8Array,
    client: string,
    transport: "udp" | "tcp",
  ): Promise<Uint8Array | undefined> {
    const { zoneOf, forward, random = Math.random } = this.#options;
    this.counters.queries++;
    const asked: Asked = {
      view: this.view,
      clientZone: zoneOf?.(client),
      transport,
      isForwarding: forward !== undefined,
      random,
    };
    const reply = answer(this.#codec, message, asked);
    let response: Uint8Array | undefined;
    if (reply.kind === "response") response = reply.bytes;
    if (reply.kind === "forward") response = await this.#forwarded(message);
    if (reply.kind === "complete") response = await this.#completed(reply, message, transport);
    if (response === undefined) this.counters.ignored++;
    else this.counters.responses++;
    if ((response?.[2] ?? 0) & 0x02) this.counters.truncated++;
    return response;
  }

  async #forwarded(message: Uint8Array): Promise<Uint8Array> {
    this.counters.forwarded++;
    return (await this.#options.forward?.(message)) ?? failure(message);
  }

  /** The answer behind an alias that leads outside. */
  async #completed(
    reply: Extract<ReturnType<typeof answer>, { kind: "complete" }>,
    message: Uint8Array,
    transport: "udp" | "tcp",
  ): Promise<Uint8Array> {
    this.counters.forwarded++;
    const flags = 0x0100;
    const asked = this.#codec.encode({ type: "query", id: 0, flags, questions: [reply.question] });
    const response = await this.#options.forward?.(asked);
    const { packet } = reply;
    try {
      const rest = response && this.#codec.decode(Buffer.from(response));
      packet.answers?.push(...(rest?.answers ?? []));
      const code = response ? (response[3] ?? 0) & 0xf : SERVFAIL;
      packet.flags = ((packet.flags ?? 0) & ~0xf) | code;
    } catch {
      packet.flags = (packet.flags ?? 0) | SERVFAIL;
    }
    return encoded(this.#codec, packet, transport, offeredBytes(this.#codec, message));
  }

  /** Stops; connections are cut. */
  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
      new Promise<void>((resolve) => {
        try {
          this.#udp.close(() => resolve());
        } catch {
          resolve();
        }
      }),
    ]);
  }
}

/** Messages of a TCP stream, each without its length. */
async function* messages(socket: Socket): AsyncGenerator<Uint8Array> {
  let rest = Buffer.alloc(0);
  for await (const part of socket) {
    rest = Buffer.concat([rest, part as Buffer]);
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const bytes = 2 + rest.readUInt16BE(0);
      yield rest.subarray(2, bytes);
      rest = rest.subarray(bytes);
    }
  }
}

/** SERVFAIL for a message: its header and question, nothing else. */
function failure(message: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(12);
  bytes.set(message.subarray(0, 2));
  bytes[2] = 0x80 | ((message[2] ?? 0) & 0x79);
  bytes[3] = 0x80 | SERVFAIL;
  return bytes;
}

async function loadCodec(): Promise<Codec> {
  try {
    // CommonJS: everything hangs on the default export.
    const loaded = (await import("dns-packet")) as unknown as { default: Codec };
    return loaded.default;
  } catch (error) {
    const message = "the DNS server needs the package dns-packet: npm install dns-packet";
    throw new FlowplaneError(message, { cause: error });
  }
}
