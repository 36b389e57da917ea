/**
 * The control socket of a lab: a Unix socket that speaks JSON, one message a line.
 *
 *   → {"id": 1, "command": "register", "arguments": {"target_group": "web", "target": "10.0.2.11"}}
 *   ← {"id": 1, "result": {…}}            or {"id": 1, "error": "…", "exitCode": 2}
 *   → {"id": 2, "command": "follow"}      answers, then sends {"id": 2, "event": {…}} for each event
 *
 * Commands of one connection run in order, those of several in turns: one at a time, so no two
 * changes ever mix. Only the owner may connect (mode 0600).
 *
 * Bounded: 32 connections, 64 KiB a line, 1 MiB unread by a client; beyond it a connection ends. A
 * connection is read from when its commands are done, so that one which sends many does not keep the
 * others waiting for longer than one command each.
 */

import { chmodSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { FlowplaneError } from "../errors.ts";
import type { EventLog, LiveEvent } from "./events.ts";

/** What a command does; its result is sent as JSON. */
export type Handler = (given: unknown) => unknown;

export interface ControlOptions {
  path: string;
  handlers: Readonly<Record<string, Handler>>;
  events: EventLog;
}

interface Request {
  id: unknown;
  command: string;
  arguments?: unknown;
}

const CONNECTIONS_MAX = 32;
const LINE_BYTES_MAX = 65_536;
const UNREAD_BYTES_MAX = 1_048_576;

export class ControlServer {
  readonly #options: ControlOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Ends when the last command that was taken has ended. */
  #turn: Promise<void> = Promise.resolve();

  private constructor(options: ControlOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket));
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /**
   * Listens; a socket file that nobody listens on any more is replaced.
   * @throws FlowplaneError when another process listens there
   */
  static async listen(options: ControlOptions): Promise<ControlServer> {
    const { path } = options;
    if (await isAnswering(path)) {
      throw new FlowplaneError(`${path}: another process listens on it`);
    }
    rmSync(path, { force: true });
    const control = new ControlServer(options);
    await new Promise<void>((resolve, reject) => {
      control.#server.once("error", (error) => {
        reject(new FlowplaneError(`${path}: ${error.message}`, { cause: error }));
      });
      control.#server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
    return control;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#options.path, { force: true });
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
    let rest = "";
    let done = Promise.resolve();
    const takeAll = async (lines: string[]) => {
      // What comes meanwhile stays with the sender.
      socket.pause();
      for (const line of lines) if (line.trim() !== "") await this.#take(socket, line);
      if (rest.length > LINE_BYTES_MAX) refuse(socket);
      else socket.resume();
    };
    socket.setEncoding("utf8").on("data", (part: string) => {
      const lines = (rest + part).split("\n");
      rest = lines.pop() ?? "";
      done = takeAll(lines);
    });
    // A client may close its side when it has said all; what it asked for is answered first.
    socket.on("end", () => void done.then(() => socket.end()));
  }

  /** Runs one command when those before it are done, unless its sender has gone by then. */
  #take(socket: Socket, line: string): Promise<void> {
    const done = this.#turn.then(async () => {
      if (socket.destroyed) return;
      if (line.length > LINE_BYTES_MAX) return refuse(socket);
      const request = requestOf(line);
      if (typeof request === "string") return say(socket, { id: null, error: request });
      const { id, command } = request;
      if (command === "follow") return this.#follow(socket, id);
      const handler = Object.hasOwn(this.#options.handlers, command)
        ? this.#options.handlers[command]
        : undefined;
      if (handler === undefined) {
        const known = [...Object.keys(this.#options.handlers), "follow"].join(", ");
        const error = `"${command}" is not one of ${known}`;
        return say(socket, { id, error, exitCode: 2 });
      }
      try {
        say(socket, { id, result: (await handler(request.arguments)) ?? null });
      } catch (error) {
        const exitCode = error instanceof FlowplaneError ? error.exitCode : 1;
        say(socket, { id, error: (error as Error).message, exitCode });
      }
    });
    this.#turn = done;
    return done;
  }

  #follow(socket: Socket, id: unknown): void {
    if (socket.destroyed) return;
    say(socket, { id, result: { latest: this.#options.events.latest(1)[0]?.number ?? 0 } });
    const end = this.#options.events.follow((event) => say(socket, { id, event }));
    socket.on("close", end);
  }
}

function requestOf(line: string): Request | string {
  try {
    const request = JSON.parse(line) as Request;
    if (typeof request?.command === "string") return { ...request, id: request.id ?? null };
    return 'a request is {"id": …, "command": "…", "arguments": {…}}';
  } catch (error) {
    return `not JSON: ${(error as Error).message}`;
  }
}

function say(socket: Socket, message: object): void {
  if (socket.destroyed) return;
  socket.write(`${JSON.stringify(message)}\n`);
  if (socket.writableLength > UNREAD_BYTES_MAX) socket.destroy();
}

function refuse(socket: Socket): void {
  say(socket, { id: null, error: `a line is longer than ${LINE_BYTES_MAX} bytes` });
  socket.destroySoon();
}

function isAnswering(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

interface Response {
  result?: unknown;
  error?: string;
  exitCode?: number;
  event?: LiveEvent;
}

/** A failure that the lab has reported, with the exit status that fits. */
export class ControlError extends FlowplaneError {
  override readonly exitCode: number;
  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Sends one command and gives its result. @throws FlowplaneError with what the lab says */
export async function call(path: string, command: string, given?: unknown): Promise<unknown> {
  for await (const { result } of exchange(path, command, given)) return result;
  throw new FlowplaneError(`${path}: the lab ended before it answered`);
}

/** Events from now on, until the lab ends or the caller stops. */
export async function* follow(path: string): AsyncGenerator<LiveEvent> {
  for await (const { event } of exchange(path, "follow")) if (event) yield event;
}

async function* exchange(path: string, command: string, given?: unknown): AsyncGenerator<Response> {
  const socket = connect(path);
  socket.write(`${JSON.stringify({ id: 1, command, arguments: given })}\n`);
  try {
    for await (const line of linesOf(socket)) {
      const response = JSON.parse(line) as Response;
      if (response.error !== undefined) {
        throw new ControlError(response.error, response.exitCode ?? 1);
      }
      yield response;
    }
  } catch (error) {
    if (error instanceof FlowplaneError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const isDown = code === "ENOENT" || code === "ECONNREFUSED";
    throw new FlowplaneError(`${path}: ${isDown ? "no lab listens here" : message}`);
  } finally {
    socket.destroy();
  }
}

/** Lines of a socket; its errors are thrown, which readline alone would not do. */
async function* linesOf(socket: Socket): AsyncGenerator<string> {
  let failure: Error | undefined;
  const lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY });
  socket.on("error", (error) => {
    failure = error;
    lines.close();
  });
  for await (const line of lines) yield line;
  if (failure) throw failure;
}
