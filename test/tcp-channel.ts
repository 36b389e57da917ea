/**
 * Many TCP connections through one engine on a virtual clock: clients on port 0, targets behind
 * port 1, both over links that lose, delay, reorder and repeat packets as a seed tells. Links are
 * bare IP. A millisecond's arrivals are one batch. Whatever leaves the engine has right checksums.
 */
import { addressBytes, addressText, seeded } from "../fixtures/bytes.ts";
import { wrongChecksums } from "../fixtures/verify.ts";
import type { ProxyProtocolOptions } from "../host/engine/api.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { type Departure, Frames } from "../host/engine/frames.ts";
import { Endpoint, type EndpointOptions } from "./tcp-endpoint.ts";
import { build, FIN, RST, read, type Segment, SYN } from "./tcp-segment.ts";
import { type Ends, FIXED, type World } from "./tcp-world.ts";

export interface LinkOptions {
  /** Shares of packets. */
  loss: number;
  duplication: number;
  /** Every packet takes 1 to so many ms, so later ones overtake. */
  delayMsMax: number;
}

export interface ConnectionOptions {
  client: Omit<EndpointOptions, "data">;
  server: Omit<EndpointOptions, "data">;
  toServer: Uint8Array;
  toClient: Uint8Array;
  link: LinkOptions;
  isIpv6: boolean;
  headerBytes: number;
}

const TICKS_MAX = 1 << 16;
const CLIENT_SIDE = 0;
const SERVER_SIDE = 1;

interface Flight {
  packet: Uint8Array;
  connection: Connection;
  /** Port of the engine that it arrives at; undefined: it arrives at an end. */
  port?: number;
  /** Which end. */
  isForClient?: boolean;
}

export class Connection {
  readonly client: Endpoint;
  readonly server: Endpoint;
  readonly options: ConnectionOptions;
  /** The client's address and port, and those that it connects to. */
  readonly from: Ends;
  readonly to: Ends;
  /** Payloads of the headers that the engine made, by their bytes. */
  readonly headers = new Set<string>();
  headerCount = 0;
  startMs = 0;
  /** Addresses as each end sees the other: taken from the first packets. */
  #serverSide:
    | Pick<Segment, "source" | "destination" | "sourcePort" | "destinationPort">
    | undefined;

  constructor(
    options: ConnectionOptions,
    from: Ends,
    to: Ends,
    fly: (connection: Connection, packet: Uint8Array, port: number) => void,
  ) {
    this.options = options;
    this.from = from;
    this.to = to;
    const { toServer, toClient, headerBytes } = options;
    const there = {
      source: addressBytes(from.address),
      destination: addressBytes(to.address),
      sourcePort: from.port,
      destinationPort: to.port,
    };
    this.client = new Endpoint(
      { ...options.client, data: toServer },
      (segment) => fly(this, build({ ...segment, ...there }), CLIENT_SIDE),
      toClient.length,
    );
    this.server = new Endpoint(
      { ...options.server, data: toClient },
      (segment) => {
        const seen = this.#serverSide;
        if (!seen) throw new Error("the server speaks before it is spoken to");
        const back = {
          source: seen.destination,
          destination: seen.source,
          sourcePort: seen.destinationPort,
          destinationPort: seen.sourcePort,
        };
        fly(this, build({ ...segment, ...back }), SERVER_SIDE);
      },
      headerBytes + toServer.length,
    );
  }

  arrive(isForClient: boolean, segment: Segment, nowMs: number): void {
    if (isForClient) {
      this.client.receive(segment, nowMs);
      return;
    }
    const { source, destination, sourcePort, destinationPort } = segment;
    this.#serverSide ??= { source, destination, sourcePort, destinationPort };
    this.server.receive(segment, nowMs);
  }

  /** What the target sees: whom it is, and whom it talks to. */
  get target(): Ends | undefined {
    const seen = this.#serverSide;
    return seen && { address: addressText(seen.destination), port: seen.destinationPort };
  }

  get node(): Ends | undefined {
    const seen = this.#serverSide;
    return seen && { address: addressText(seen.source), port: seen.sourcePort };
  }

  get isDone(): boolean {
    return this.client.isDone && this.server.isDone;
  }
}

function endsOf(packet: Uint8Array): string {
  const { source, destination, sourcePort, destinationPort } = read(packet);
  return `${addressText(source)} ${sourcePort} ${addressText(destination)} ${destinationPort}`;
}

/** Packets of one run, by what became of them. */
export interface Tally {
  packets: number;
  made: number;
  lost: number;
}

/** An engine with headers, between clients on port 0 and targets behind port 1. */
export async function channelEngine(
  proxyProtocol: ProxyProtocolOptions,
  { nodes, targets, targetPort }: World = FIXED,
): Promise<Engine> {
  const engine = await createEngine({
    flowCountMax: 4096,
    flow6CountMax: 4096,
    seed: new Uint8Array(16),
    warmUp: false,
    proxyProtocol: true,
  });
  engine.setService(0, {
    sourceAddresses: [...nodes],
    targets: targets.map((address) => ({ address, port: targetPort })),
    proxyProtocol,
  });
  engine.setPort(CLIENT_SIDE, { service: 0, peer: SERVER_SIDE, link: "raw" });
  engine.setPort(SERVER_SIDE, { sides: "service", peer: CLIENT_SIDE, link: "raw" });
  return engine;
}

/** What packets pass on their way: frames of the batch in, departures out, in order. */
type Pass = (packet: Uint8Array, port: number, nowMs: number) => Promise<Departure[]>;

export class Channel {
  readonly engine: Engine;
  /** Instead of the engine alone: takes one packet after the other. */
  pass: Pass | undefined;
  readonly tally: Tally = { packets: 0, made: 0, lost: 0 };
  readonly #frames: Frames;
  readonly #proxyProtocol: ProxyProtocolOptions;
  readonly #world: World;
  readonly #random: () => number;
  readonly #ring: Flight[][] = Array.from({ length: 8192 }, () => []);
  readonly connections: Connection[] = [];
  #live: Connection[] = [];
  nowMs = 0;

  static async create(
    seed: number,
    proxyProtocol: ProxyProtocolOptions,
    world = FIXED,
  ): Promise<Channel> {
    const engine = await channelEngine(proxyProtocol, world);
    return new Channel(engine, proxyProtocol, world, seed);
  }

  constructor(engine: Engine, proxyProtocol: ProxyProtocolOptions, world: World, seed: number) {
    this.engine = engine;
    this.#world = world;
    this.#frames = new Frames(engine);
    this.#proxyProtocol = proxyProtocol;
    this.#random = seeded(seed);
  }

  open(options: ConnectionOptions, startMs: number): Connection {
    const { listeners, listenerPort } = this.#world;
    const from = this.#world.clientOf(this.connections.length, options.isIpv6);
    const to = { address: listeners[options.isIpv6 ? 1 : 0], port: listenerPort };
    const connection = new Connection(options, from, to, (one, packet, at) => {
      this.#fly({ connection: one, packet, port: at });
    });
    connection.startMs = startMs;
    this.connections.push(connection);
    this.#live.push(connection);
    return connection;
  }

  /** Over one of the two links of the packet's way. */
  #fly(flight: Flight): void {
    const { loss, duplication, delayMsMax } = flight.connection.options.link;
    this.tally.packets++;
    const copies = this.#random() < loss ? 0 : this.#random() < duplication ? 2 : 1;
    if (copies === 0) this.tally.lost++;
    for (let copy = 0; copy < copies; copy++) {
      const atMs = this.nowMs + 1 + Math.floor(this.#random() * delayMsMax);
      this.#ring[atMs % this.#ring.length]?.push(flight);
    }
  }

  /** Until all connections are closed. @throws Error when one is not after a long time */
  async run(): Promise<void> {
    for (let tick = 0; tick < TICKS_MAX; tick++) {
      this.nowMs++;
      await this.#step();
      if (tick % 64 !== 0) continue;
      this.#live = this.#live.filter(({ isDone }) => !isDone);
      if (this.#live.length === 0) return;
    }
    throw new Error(`not closed after ${TICKS_MAX} ms`);
  }

  async #step(): Promise<void> {
    const slot = this.nowMs % this.#ring.length;
    const flights = this.#ring[slot] as Flight[];
    this.#ring[slot] = [];
    const inside = flights.filter(({ port }) => port !== undefined);
    for (let start = 0; start < inside.length; start += 256) {
      await this.#process(inside.slice(start, start + 256));
    }
    for (const { packet, connection, port, isForClient } of flights) {
      if (port === undefined) connection.arrive(isForClient === true, read(packet), this.nowMs);
    }
    for (const connection of this.#live) {
      if (connection.startMs === this.nowMs) connection.client.connect(this.nowMs);
      connection.client.tick(this.nowMs);
      connection.server.tick(this.nowMs);
    }
  }

  async #process(flights: Flight[]): Promise<void> {
    if (this.pass === undefined) {
      for (const { packet, port } of flights) this.#frames.add(packet, this.nowMs, port ?? 0);
      return this.#leave(flights, this.#frames.process());
    }
    for (const flight of flights) {
      this.#leave([flight], await this.pass(flight.packet, flight.port ?? 0, this.nowMs));
    }
  }

  #leave(flights: Flight[], departures: Departure[]): void {
    let next = 0;
    let made: Uint8Array | undefined;
    for (const departure of departures) {
      const isForClient = departure.port === CLIENT_SIDE;
      const flight = flights[next] as Flight;
      const { connection } = flight;
      const packet = departure.frame.slice();
      const wrong = wrongChecksums(packet, "raw");
      if (wrong.length > 0) throw new Error(`leaves with a wrong checksum of ${wrong}`);
      if (departure.made === undefined) {
        next++;
        if (made) this.#checkCause(made, packet);
        const isAbsorbed = made !== undefined && departure.verdict === "absorb.header";
        made = undefined;
        if (isAbsorbed) continue;
        if (departure.verdict !== "forward") throw new Error(`verdict ${departure.verdict}`);
      } else made = this.#checkHeader(connection, departure, packet);
      this.#fly({ connection, packet, isForClient });
    }
  }

  #checkHeader(connection: Connection, { made }: Departure, packet: Uint8Array): Uint8Array {
    if (made !== "pp2") throw new Error(`the engine made ${made}`);
    const { payload } = read(packet);
    connection.headers.add(Buffer.from(payload).toString("hex"));
    connection.headerCount++;
    this.tally.made++;
    return packet;
  }

  /** By default nothing but payload, FIN or RST causes a header, which has the ends of its cause. */
  #checkCause(made: Uint8Array, cause: Uint8Array): void {
    const { flags, payload } = read(cause);
    if (endsOf(made) !== endsOf(cause)) throw new Error("a header has other ends than its cause");
    if (flags & SYN) throw new Error("a SYN caused a header");
    if (made.length === 0) throw new Error("an empty header");
    if (this.#proxyProtocol.placement === "on_first_ack") return;
    if (payload.length === 0 && (flags & (FIN | RST)) === 0) {
      throw new Error("a pure ACK caused a header");
    }
  }
}
