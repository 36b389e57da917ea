/**
 * What a PROXY header in the stream costs, side by side in one run: the same connections through a
 * service without and with it.
 *
 *   packet    of a flow whose header is acknowledged, data from the client and acknowledgements from
 *             the service in turn, flows in random order
 *   opening   SYN, SYN-ACK, ACK, first data and its acknowledgement of a flow that begins, and the
 *             segment that the header takes
 *
 * A window is one batch of 250 packets, timed by itself, so that what disturbs a machine leaves some
 * windows alone; an opening is its five steps, a window of each. A thousand flows in a small table
 * stay in the caches, which leaves nothing for a header to hide behind; a million are what a load
 * balancer has.
 *
 *     node bench/pp2-stream.ts
 */
import { hex, seeded } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { table } from "../host/report/table.ts";
import { count, significant } from "../host/report/units.ts";
import { alternate, sampleOf } from "./measure.ts";
import { PAGES } from "./traffic.ts";

const FLOWS = [1000, 1_000_000];
const BATCH = 250;
const STRIDE = 192;
const ROUNDS = 61;
const BATCHES = 40;
const OPENINGS = 1000;
const STEPS = 5;
const HEADER_BYTES = 100;
const ISN = 1000;
const TIMESTAMPS = hex("0101080a0000000100000002");
const TARGET = "100.64.0.1";
const LISTENER = "192.0.2.80";

interface Frame {
  bytes: Uint8Array;
  port: number;
}

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

  static async create(hasHeader: boolean, flowCountMax: number): Promise<Way> {
    const engine = await createEngine({
      prepareMemory: PAGES.prepare,
      flowCountMax,
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

  /** Opens flows, a batch of each step after the other; returns the windows in that order. */
  open(count: number): number[] {
    const windows: number[] = [];
    for (let start = 0; start < count; start += BATCH) {
      for (const frame of this.#opening) {
        for (let index = 0; index < BATCH; index++) this.#put(index, frame, this.#opened + index);
        windows.push(this.#process());
      }
      this.#opened += BATCH;
    }
    return windows;
  }

  /** Packets of open flows as `pick` numbers them, both directions in turn; returns the windows. */
  send(batches: number, pick: () => number): number[] {
    return Array.from({ length: batches }, () => {
      for (let index = 0; index < BATCH; index++) {
        this.#put(index, this.#open[index % 2] as Frame, pick());
      }
      return this.#process();
    });
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
  /** What is counted, one of which the figures are about. */
  unit: string;
  without: [best: number, median: number];
  with: [best: number, median: number];
  ratio: number;
}

interface Ways {
  without: Way;
  with: Way;
}

async function createWays(flowCountMax: number): Promise<Ways> {
  return {
    without: await Way.create(false, flowCountMax),
    with: await Way.create(true, flowCountMax),
  };
}

/** Both ways in turns; `run` returns windows of `steps` kinds in turn, of which a unit has each once. */
function compare(
  unit: string,
  ways: Ways,
  rounds: number,
  steps: number,
  run: (way: Way) => number[],
): StreamCost {
  const windows: Record<keyof Ways, number[]> = { without: [], with: [] };
  const turn = (name: keyof Ways) => () => {
    windows[name].push(...run(ways[name]));
  };
  alternate({ without: turn("without"), with: turn("with") }, rounds);
  const [without, withHeader] = [windows.without, windows.with].map((all) => {
    const parts = Array.from({ length: steps }, (_, step) => {
      return sampleOf(all.filter((_, index) => index % steps === step));
    });
    const ns = (ms: number) => (ms * 1e6) / BATCH;
    const min = parts.reduce((sum, part) => sum + part.min, 0);
    const median = parts.reduce((sum, part) => sum + part.median, 0);
    return [ns(min), ns(median)] as [number, number];
  }) as [[number, number], [number, number]];
  return { unit, without, with: withHeader, ratio: withHeader[0] / without[0] };
}

/** @throws Error when a packet was dropped, or not every flow got one header */
function check(ways: Ways): void {
  for (const name of ["without", "with"] as const) {
    const { engine } = ways[name];
    const { verdicts, flows, emitted, proxyProtocol } = engine.counters();
    const forwarded = verdicts.forward;
    const all = Object.values(verdicts).reduce((sum, one) => sum + one, 0);
    const headers = name === "with" ? flows.created : 0;
    if (forwarded !== all || emitted.pp2 !== headers || proxyProtocol.repeated > 0) {
      throw new Error(`bench: ${all - forwarded} packets dropped, ${emitted.pp2} headers made`);
    }
  }
}

/** @throws Error when a packet was dropped, or not every flow got one header */
export async function measureStreams(rounds = ROUNDS, flowCounts = FLOWS): Promise<StreamCost[]> {
  const costs: StreamCost[] = [];
  for (const flows of flowCounts) {
    const room = flows + (rounds + 1) * OPENINGS;
    const ways = await createWays(Math.max(1 << 18, Math.ceil(room * 1.05)));
    for (const way of Object.values(ways)) way.open(flows);
    const random = seeded(1);
    const pick = () => Math.floor(random() * flows);
    const among = `among ${count(flows)} flows`;
    costs.push(
      compare(`packet ${among}`, ways, rounds, 1, (way) => way.send(BATCHES, pick)),
      compare(`opening ${among}`, ways, rounds, STEPS, (way) => way.open(OPENINGS)),
    );
    check(ways);
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
  const rows = costs.map(({ unit, without, with: with_, ratio }) => [
    `per ${unit}`,
    ...without.map(significant),
    ...with_.map(significant),
    ratio.toFixed(3),
  ]);
  process.stdout.write(`${table(columns, rows).join("\n")}\n`);
}
