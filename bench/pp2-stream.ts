/**
 * What a PROXY header in the stream costs, side by side in one run: the same connections through a
 * service without and with it. Established: packets of 1000 flows whose header is acknowledged,
 * both directions in turn. New: SYN, SYN-ACK, ACK, first data and its acknowledgement of flows that
 * begin.
 *
 *     node bench/pp2-stream.ts
 */
import { hex } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { alternate, sampleOf } from "./measure.ts";

const FLOWS = 1000;
const BATCH = 250;
const STRIDE = 192;
const ROUNDS = 41;
const PACKETS = 10_000;
const OPENINGS = 1000;
const HEADER_BYTES = 100;
const ISN = 1000;
const TIMESTAMPS = hex("0101080a0000000100000002");
const TARGET = "100.64.0.1";
const LISTENER = "192.0.2.80";

interface Frame {
  bytes: Uint8Array;
  port: number;
}

type Kind = "established" | "new";

/** Where the client's address and port stand in a frame of a port. */
const CLIENT_AT = [26, 30];
const PORT_AT = [34, 36];

/** One engine and its connections, told apart by their number. */
class Way {
  readonly engine: Engine;
  /** The five packets of an opening, and two of an open connection. */
  readonly #opening: Frame[];
  readonly #open: Frame[];
  #opened = 0;

  constructor(engine: Engine, hasHeader: boolean) {
    this.engine = engine;
    const shift = hasHeader ? HEADER_BYTES : 0;
    this.#opening = [
      client("S", 0, 0),
      server("SA", 1),
      client("A", 1, 0),
      client("PA", 1, 60),
      server("A", 61 + shift),
    ];
    this.#open = [client("PA", 61, 20), server("A", 61 + shift)];
  }

  static async create(hasHeader: boolean): Promise<Way> {
    const engine = await createEngine({
      flowCountMax: 1 << 20,
      flow6CountMax: 16,
      seed: new Uint8Array(16),
      proxyProtocol: hasHeader,
    });
    const targets = [{ address: TARGET, port: 8080 }];
    engine.setService(0, { targets, ...(hasHeader && { proxyProtocol: {} }) });
    engine.setPort(0, { service: 0, peer: 1 });
    engine.setPort(1, { sides: "service", peer: 0 });
    return new Way(engine, hasHeader);
  }

  /** Puts a frame of a flow into the batch. Checksums are whatever they are: they only move. */
  #put(index: number, { bytes: frame, port }: Frame, flow: number): void {
    const { arena, bytes, descriptors } = this.engine;
    const address = arena.address + index * STRIDE;
    bytes.set(frame, address);
    const client = address + (CLIENT_AT[port] as number);
    bytes[client + 1] = flow >> 16;
    bytes[client + 2] = flow >> 8;
    bytes[client + 3] = flow;
    const number = 20_000 + (flow % 1000);
    bytes[address + (PORT_AT[port] as number)] = number >> 8;
    bytes[address + (PORT_AT[port] as number) + 1] = number;
    descriptors.set([address, frame.length, 1, port, 0, 0, 0, frame.length], index * 8);
  }

  /** Milliseconds of the engine for a batch that has been put together. */
  #process(): number {
    const start = performance.now();
    this.engine.process(BATCH);
    return performance.now() - start;
  }

  /** Opens flows, a batch of each step after the other; returns ms of the engine. */
  open(count: number): number {
    let taken = 0;
    for (let start = 0; start < count; start += BATCH) {
      for (const frame of this.#opening) {
        for (let index = 0; index < BATCH; index++) this.#put(index, frame, this.#opened + index);
        taken += this.#process();
      }
      this.#opened += BATCH;
    }
    return taken;
  }

  /** Packets of the first flows, both directions in turn; returns ms of the engine. */
  send(count: number): number {
    const { arena, bytes, descriptors } = this.engine;
    for (let index = 0; index < BATCH; index++) {
      this.#put(index, this.#open[index % 2] as Frame, (index * 7) % FLOWS);
    }
    const before = bytes.slice(arena.address, arena.address + BATCH * STRIDE);
    const described = descriptors.slice(0, BATCH * 8);
    let taken = 0;
    for (let start = 0; start < count; start += BATCH) {
      bytes.set(before, arena.address);
      descriptors.set(described);
      taken += this.#process();
    }
    return taken;
  }
}

function client(flags: string, seq: number, payload: number): Frame {
  const options = { flags, seq: ISN + seq, options: TIMESTAMPS };
  const packet = eth().ipv4("10.0.0.0", LISTENER).tcp(20_000, 443, options);
  return { bytes: packet.payload(payload).bytes(), port: 0 };
}

function server(flags: string, ack: number): Frame {
  const options = { flags, seq: 5000, ack: ISN + ack, options: TIMESTAMPS };
  return { bytes: eth().ipv4(TARGET, "10.0.0.0").tcp(8080, 20_000, options).bytes(), port: 1 };
}

export interface StreamCost {
  kind: Kind;
  unit: string;
  without: [best: number, median: number];
  with: [best: number, median: number];
  ratio: number;
}

/** @throws Error when a packet was dropped, or not every flow got one header */
export async function measureStreams(rounds = ROUNDS): Promise<StreamCost[]> {
  const ways = { without: await Way.create(false), with: await Way.create(true) };
  for (const way of Object.values(ways)) way.open(FLOWS);
  const costs: StreamCost[] = [];
  for (const kind of ["established", "new"] as const) {
    const ms: Record<keyof typeof ways, number[]> = { without: [], with: [] };
    const count = kind === "new" ? OPENINGS : PACKETS;
    const turn = (name: keyof typeof ways) => () => {
      ms[name].push(kind === "new" ? ways[name].open(count) : ways[name].send(count));
    };
    alternate({ without: turn("without"), with: turn("with") }, rounds);
    const [without, withHeader] = [ms.without, ms.with].map((times) => {
      const { min, median } = sampleOf(times);
      return [(min * 1e6) / count, (median * 1e6) / count] as [number, number];
    }) as [[number, number], [number, number]];
    const unit = kind === "new" ? "opening of 5 packets" : "packet";
    const ratio = withHeader[0] / without[0];
    costs.push({ kind, unit, without, with: withHeader, ratio });
  }
  for (const [name, { engine }] of Object.entries(ways)) {
    const { verdicts, flows, emitted, proxyProtocol } = engine.counters();
    const forwarded = verdicts.forward;
    const all = Object.values(verdicts).reduce((sum, count) => sum + count, 0);
    const headers = name === "with" ? flows.created : 0;
    if (forwarded !== all || emitted.pp2 !== headers || proxyProtocol.repeated > 0) {
      throw new Error(`bench: ${all - forwarded} packets dropped, ${emitted.pp2} headers made`);
    }
  }
  return costs;
}

if (import.meta.main) {
  const costs = await measureStreams();
  const right = (title: string) => ({ title, align: "right" }) as const;
  const columns = [
    { title: "ns", align: "left" } as const,
    right("plain"),
    right("median"),
    right("with header"),
    right("median"),
    right("ratio"),
  ];
  const rows = costs.map(({ kind, unit, without, with: with_, ratio }) => [
    `${kind}, per ${unit}`,
    ...without.map(significant),
    ...with_.map(significant),
    ratio.toFixed(3),
  ]);
  process.stdout.write(`${table(columns, rows).join("\n")}\n`);
}
