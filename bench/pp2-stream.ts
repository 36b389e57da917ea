/**
 * What a PROXY header in the stream costs, side by side in one run: the same connections through a
 * service without and with it.
 *
 *   packet    of a flow whose header is acknowledged, data from the client and acknowledgements from
 *             the service in turn, flows in random order
 *   opening   SYN, SYN-ACK, ACK, first data and its acknowledgement of a flow that begins, and the
 *             segment that the header takes: before the data, or (`on_first_ack`) in place of the ACK
 *
 * Both take turns of a third of a millisecond, and what is compared is each turn with the one right
 * beside it: a machine that is slow for a while is slow for both. The ratio is the median of those pairs;
 * that of the best turns stands beside it. A thousand flows stay in the caches, which leaves nothing
 * for a header to hide behind; a million are what a load balancer has.
 *
 *     node bench/pp2-stream.ts             about fifteen seconds
 *     node bench/pp2-stream.ts --smoke     a little of it; a part of `npm test`
 */
import { hex, internetChecksum, same, seeded } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import type { HeaderPlacement } from "../host/engine/api.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { table } from "../host/report/table.ts";
import { count, significant } from "../host/report/units.ts";
import { sampleOf } from "./measure.ts";
import { PAGES } from "./traffic.ts";

const FLOWS = [1000, 100_000, 1_000_000];
const BATCH = 250;
const STRIDE = 192;
const PAIRS = 300;
const SMOKE_PAIRS = 2;
const BATCHES = 24;
const OPENINGS = 250;
const HEADER_BYTES = 100;
const ISN = 1000;
const TIMESTAMPS = hex("0101080a0000000100000002");
/** What the requirement allows. */
const RATIO_MAX = { packet: 1.05, opening: 1.3, "opening, on_first_ack,": 1.3 } as const;
const PLACEMENTS = {
  without: undefined,
  with: "on_first_ack_with_payload",
  early: "on_first_ack",
} as const;
const TARGET = "100.64.0.1";
const LISTENER = "192.0.2.80";

interface Frame {
  bytes: Uint8Array;
  port: number;
}

/** Where the client's address and port stand in a frame of a port. */
const CLIENT_AT = [26, 30];
const PORT_AT = [34, 36];
const ADDRESSES_AT = 26;
const SEQUENCE_AT = 38;
const CHECKSUM_AT = 50;

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

  static async create(placement: HeaderPlacement | undefined, flowCountMax: number): Promise<Way> {
    const hasHeader = placement !== undefined;
    const engine = await createEngine({
      prepareMemory: PAGES.prepare,
      flowCountMax,
      flow6CountMax: 16,
      seed: new Uint8Array(16),
      proxyProtocol: hasHeader,
    });
    const targets = [{ address: TARGET, port: 8080 }];
    engine.setService(0, { targets, ...(hasHeader && { proxyProtocol: { placement } }) });
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

  /** Opens flows, a batch of each step after the other; milliseconds of the engine. */
  open(count: number): number {
    let spent = 0;
    for (let start = 0; start < count; start += BATCH) {
      for (const frame of this.#opening) {
        for (let index = 0; index < BATCH; index++) this.#put(index, frame, this.#opened + index);
        spent += this.#process();
      }
      this.#opened += BATCH;
    }
    return spent;
  }

  /** Packets of open flows as `pick` numbers them, both directions in turn; milliseconds of the engine. */
  send(batches: number, pick: () => number): number {
    let spent = 0;
    for (let batch = 0; batch < batches; batch++) {
      for (let index = 0; index < BATCH; index++) {
        this.#put(index, this.#open[index % 2] as Frame, pick());
      }
      spent += this.#process();
    }
    return spent;
  }

  /** The two packets of an open flow as they leave. */
  translated(flow: number): Uint8Array[] {
    const { arena, bytes } = this.engine;
    for (const [index, frame] of this.#open.entries()) this.#put(index, frame, flow);
    this.engine.process(this.#open.length);
    return this.#open.map(({ bytes: { length } }, index) => {
      const start = arena.address + index * STRIDE;
      return bytes.slice(start, start + length);
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
  goal: number;
  /** What is counted, one of which the figures are about. */
  unit: string;
  /** ns, best turn and median. */
  without: [best: number, median: number];
  with: [best: number, median: number];
  /** Best turn over best turn, and the median of the ratios of turns that lie side by side. */
  ratio: [best: number, median: number];
}

type Ways = Record<keyof typeof PLACEMENTS, Way>;

async function createWays(flowCountMax: number): Promise<Ways> {
  const ways = {} as Ways;
  for (const [name, placement] of Object.entries(PLACEMENTS)) {
    ways[name as keyof Ways] = await Way.create(placement, flowCountMax);
  }
  return ways;
}

/**
 * Pairs of turns over the same packets, without a header and in the way `headed`, now one first and now the
 * other; `run` does `units` of them and returns milliseconds.
 */
function compare(
  kind: keyof typeof RATIO_MAX,
  among: string,
  ways: Ways,
  headed: "with" | "early",
  pairs: number,
  units: number,
  run: (way: Way, pair: number) => number,
): StreamCost {
  const turns = { without: [] as number[], with: [] as number[] };
  const sides = [
    { taken: turns.without, way: ways.without },
    { taken: turns.with, way: ways[headed] },
  ];
  for (let pair = 0; pair < pairs; pair++) {
    for (const { taken, way } of pair % 2 === 0 ? sides : sides.toReversed()) {
      taken.push((run(way, pair) * 1e6) / units);
    }
  }
  const [without, withHeader] = [sampleOf(turns.without), sampleOf(turns.with)];
  const ratios = turns.with.map((ns, pair) => ns / (turns.without[pair] as number));
  return {
    goal: RATIO_MAX[kind],
    unit: `${kind} ${among}`,
    without: [without.min, without.median],
    with: [withHeader.min, withHeader.median],
    ratio: [withHeader.min / without.min, sampleOf(ratios).median],
  };
}

/**
 * @throws Error when a packet was dropped, not every flow got one header, or what leaves of a flow differs
 *   in more than the number of the client's segment and a checksum that is as right as it was
 */
function check(ways: Ways, flows: number): void {
  for (const [name, placement] of Object.entries(PLACEMENTS)) {
    const { verdicts, flows, emitted, proxyProtocol } = ways[name as keyof Ways].engine.counters();
    const absorbed = verdicts["absorb.header"];
    const all = Object.values(verdicts).reduce((sum, one) => sum + one, 0);
    const dropped = all - verdicts.forward - absorbed;
    const headers = placement === undefined ? 0 : flows.created;
    const absorbable = placement === "on_first_ack" ? flows.created : 0;
    const isRight = absorbed === absorbable && emitted.pp2 === headers;
    if (dropped > 0 || !isRight || proxyProtocol.repeated > 0) {
      throw new Error(
        `bench: ${name}: ${dropped} packets dropped, ${absorbed} absorbed, ${emitted.pp2} headers made`,
      );
    }
  }
  for (let flow = 0; flow < flows; flow += 97) {
    const [sent, answer] = ways.without.translated(flow) as [Uint8Array, Uint8Array];
    for (const way of [ways.with, ways.early]) {
      const [moved, other] = way.translated(flow) as [Uint8Array, Uint8Array];
      if (!same(answer, other) || !isMoved(sent, moved)) {
        throw new Error(`bench: packets of flow ${flow} are not what they are without a header`);
      }
    }
  }
}

/** Whether two frames differ in a number that is higher by the header, and a checksum that is as right. */
function isMoved(sent: Uint8Array, moved: Uint8Array): boolean {
  const numberIn = (frame: Uint8Array) => new DataView(frame.buffer).getUint32(SEQUENCE_AT);
  const sumOf = (frame: Uint8Array) => internetChecksum(frame.subarray(ADDRESSES_AT));
  const blank = (frame: Uint8Array) =>
    frame
      .slice()
      .fill(0, SEQUENCE_AT, SEQUENCE_AT + 4)
      .fill(0, CHECKSUM_AT, CHECKSUM_AT + 2);
  const isHigher = numberIn(moved) === numberIn(sent) + HEADER_BYTES;
  return isHigher && sumOf(sent) === sumOf(moved) && same(blank(sent), blank(moved));
}

/** @throws Error when what leaves is not what it must be */
export async function measureStreams(pairs = PAIRS, flowCounts = FLOWS): Promise<StreamCost[]> {
  const costs: StreamCost[] = [];
  const open = (way: Way) => way.open(OPENINGS);
  for (const flows of flowCounts) {
    const room = flows + (2 * pairs + 1) * OPENINGS;
    const ways = await createWays(Math.max(1 << 18, Math.ceil(room * 1.05)));
    for (const way of Object.values(ways)) way.open(flows);
    const among = `among ${count(flows)} flows`;
    const packets = BATCHES * BATCH;
    costs.push(
      compare("packet", among, ways, "with", pairs, packets, (way, pair) => {
        const random = seeded(pair);
        return way.send(BATCHES, () => Math.floor(random() * flows));
      }),
      compare("opening", among, ways, "with", pairs, OPENINGS, open),
    );
    // As many flows stand in both tables that are compared.
    ways.early.open(pairs * OPENINGS);
    costs.push(compare("opening, on_first_ack,", among, ways, "early", pairs, OPENINGS, open));
    check(ways, flows);
  }
  return costs;
}

if (import.meta.main) {
  const isSmoke = process.argv.includes("--smoke");
  const costs = await (isSmoke ? measureStreams(SMOKE_PAIRS, [1000]) : measureStreams());
  const right = (title: string) => ({ title, align: "right" }) as const;
  const columns = [
    { title: "ns", align: "left" } as const,
    right("plain"),
    right("median"),
    right("with header"),
    right("median"),
    right("ratio"),
    right("median"),
    right("at most"),
    right("met"),
  ];
  const rows = costs.map(({ unit, without, with: with_, ratio, goal }) => [
    `per ${unit}`,
    ...without.map(significant),
    ...with_.map(significant),
    ...ratio.map((one) => one.toFixed(3)),
    `${goal}`,
    ratio[1] <= goal ? "yes" : "no",
  ]);
  process.stdout.write(`${table(columns, rows).join("\n")}\n`);
}
