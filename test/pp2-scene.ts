/** A connection through an engine that puts PROXY headers into its stream, segment by segment. */
import { addressBytes, pattern } from "../fixtures/bytes.ts";
import type { EngineOptions, PortOptions, ServiceOptions } from "../host/engine/api.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { type Departure, Frames } from "../host/engine/frames.ts";
import { ACK, build, read, type Segment, SYN } from "./tcp-segment.ts";

export const H = 100;
/** Both wrap within the first bytes. */
export const CLIENT_ISN = 2 ** 32 - 50;
export const SERVER_ISN = 2 ** 32 - 3;
export const V4 = {
  client: "10.0.0.9",
  listener: "192.0.2.80",
  target: "100.64.0.1",
  nat: "198.19.255.1",
};
export const V6 = {
  client: "2001:db8::9",
  listener: "2001:db8:f::80",
  target: "2001:db8:0:3::1",
  nat: "2001:db8:0:2::1",
};
export const CLIENT_PORT = 50_000;

export interface Out {
  made: boolean;
  verdict: string;
  bytes: Uint8Array;
  /** Numbers relative to the initial ones. */
  segment: Segment;
}

export interface Scene {
  engine: Engine;
  /** A segment of the client; `seq` and `ack` relative. */
  client(seq: number, ack: number, flags: number, more?: Partial<Segment>): Out[];
  server(seq: number, ack: number, flags: number, more?: Partial<Segment>): Out[];
  /** Raw bytes in at a port. */
  raw(bytes: Uint8Array, port: number): Departure[];
  /** SYN and SYN-ACK. */
  handshake(): void;
}

export async function scene(
  service: ServiceOptions = {},
  addresses = V4,
  engineOptions: EngineOptions = {},
  port: PortOptions = {},
): Promise<Scene> {
  const engine = await createEngine({
    flowCountMax: 64,
    flow6CountMax: 64,
    seed: new Uint8Array(16),
    warmUp: false,
    proxyProtocol: true,
    ...engineOptions,
  });
  engine.setService(0, {
    sourceAddresses: [V4.nat, V6.nat],
    targets: [V4.target, V6.target].map((address) => ({ address, port: 8080 })),
    proxyProtocol: {},
    ...service,
  });
  engine.setPort(0, { service: 0, peer: 1, link: "raw", ...port });
  engine.setPort(1, { sides: "service", peer: 0, link: "raw" });
  const frames = new Frames(engine);
  let nowMs = 0;
  const raw = (bytes: Uint8Array, at: number) => {
    frames.add(bytes, ++nowMs, at);
    return frames.process().map((one) => ({ ...one, frame: one.frame.slice() }));
  };
  const send = (isClient: boolean, segment: Partial<Segment>): Out[] => {
    const [from, to] = isClient
      ? [addresses.client, addresses.listener]
      : [addresses.target, addresses.nat];
    const whole: Segment = {
      source: addressBytes(from),
      destination: addressBytes(to),
      sourcePort: isClient ? CLIENT_PORT : 8080,
      destinationPort: isClient ? 443 : CLIENT_PORT,
      flags: 0,
      window: 1000,
      urgent: 0,
      options: {},
      payload: new Uint8Array(0),
      ...segment,
      seq: ((isClient ? CLIENT_ISN : SERVER_ISN) + (segment.seq ?? 0)) >>> 0,
      ack:
        (segment.flags ?? 0) & ACK
          ? ((isClient ? SERVER_ISN : CLIENT_ISN) + (segment.ack ?? 0)) >>> 0
          : 0,
    };
    return raw(build(whole), isClient ? 0 : 1).map((one) => seen(one, isClient));
  };
  const client: Scene["client"] = (seq, ack, flags, more) =>
    send(true, { ...more, seq, ack, flags });
  const server: Scene["server"] = (seq, ack, flags, more) =>
    send(false, { ...more, seq, ack, flags });
  const handshake = () => {
    client(0, 0, SYN);
    server(0, 1, SYN | ACK);
  };
  return { engine, client, server, raw, handshake };
}

/** What left, short: `H` for a header, then seq, ack and length. */
export function line(out: Out[]): string {
  return out
    .map(({ made, segment }) => {
      const { seq, ack, payload } = segment;
      return `${made ? "H " : ""}${seq} ${ack} +${payload.length}`;
    })
    .join(", ");
}

export const BYTES = pattern(10);
export const data = { payload: BYTES };

/** A departure with the numbers of its segment relative to the initial ones. */
function seen({ made, verdict, frame }: Departure, isClient: boolean): Out {
  const got = read(frame);
  const relative = (value: number, isn: number) => (value - isn) | 0;
  const seq = relative(got.seq, isClient ? CLIENT_ISN : SERVER_ISN);
  const ack = relative(got.ack, isClient ? SERVER_ISN : CLIENT_ISN);
  const sack = got.options.sack?.map(
    (block) => block.map((edge) => relative(edge, CLIENT_ISN)) as [number, number],
  );
  const options = { ...got.options, ...(sack && { sack }) };
  const relatives = { ...got, seq, ack: got.flags & ACK ? ack : 0, options };
  return { made: made !== undefined, verdict, bytes: frame, segment: relatives };
}
