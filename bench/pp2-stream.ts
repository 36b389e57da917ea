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

const FLOWS = { IPv4: [1000, 100_000, 1_000_000], IPv6: [1000, 100_000] };
const BATCH = 250;
const STRIDE = 192;
const PAIRS = 300;
const SMOKE_PAIRS = 2;
const BATCHES = 24;
const OPENINGS = 250;
const HEADER_BYTES = 100;
const ISN = 1000;
/** For a table that nothing is put into. */
const FEW_FLOWS = 16;
const TIMESTAMPS = hex("0101080a0000000100000002");
/** What the requirement allows. */
const RATIO_MAX = { packet: 1.05, opening: 1.3, "opening, on_first_ack,": 1.3 } as const;
const PLACEMENTS = {
  without: undefined,
  with: "on_first_ack_with_payload",
  early: "on_first_ack",
} as const;
interface Frame {
  bytes: Uint8Array;
  port: number;
}

/** A family's addresses, and where a frame has what differs. */
interface Family {
  name: keyof typeof FLOWS;
  client: string;
  target: string;
  listener: string;
  /** Where the client's address and port stand in a frame of a port; three bytes of it are the flow's number. */
  numberAt: [number, number];
  portAt: [number, number];
  addressesAt: number;
  sequenceAt: number;
  checksumAt: number;
}

const FAMILIES: Record<keyof typeof FLOWS, Family> = {
  IPv4: {
    name: "IPv4",
    client: "10.0.0.0",
    target: "100.64.0.1",
    listener: "192.0.2.80",
    numberAt: [27, 31],
    portAt: [34, 36],
    addressesAt: 26,
    sequenceAt: 38,
    checksumAt: 50,
  },
  IPv6: {
    name: "IPv6",
    client: "2001:db8::",
    target: "2001:db8:1::1",
    listener: "2001:db8:2::80",
    numberAt: [35, 51],
    portAt: [54, 56],
    addressesAt: 22,
    sequenceAt: 58,
    checksumAt: 70,
  },
};

/** One engine and its connections, told apart by their number. */
class Way {
  readonly engine: Engine;
  readonly #family: Family;
  /** The five packets of an opening, and two of an open connection. */
  readonly #opening: Frame[];
  readonly #open: Frame[];
  #opened = 0;

  constructor(engine: Engine, family: Family, hasHeader: boolean) {
    this.engine = engine;
    this.#family = family;
    const shift = hasHeader ? HEADER_BYTES : 0;
    this.#opening = [
      client(family, "S", 0, 0),
      server(family, "SA", 1),
      client(family, "A", 1, 0),
      client(family, "PA", 1, 60),
      server(family, "A", 61 + shift),
    ];
    this.#open = [client(family, "PA", 61, 20), server(family, "A", 61 + shift)];
  }

  static async create(
    family: Family,
    placement: HeaderPlacement | undefined,
    flowCount: number,
  ): Promise<Way> {
    const hasHeader = placement !== undefined;
    const engine = await createEngine({
      prepareMemory: PAGES.prepare,
      flowCountMax: family.name === "IPv4" ? flowCount : FEW_FLOWS,
      flow6CountMax: family.name === "IPv6" ? flowCount : FEW_FLOWS,
      seed: new Uint8Array(16),
      proxyProtocol: hasHeader,
    });
    const targets = [{ address: family.target, port: 8080 }];
    engine.setService(0, { targets, ...(hasHeader && { proxyProtocol: { placement } }) });
    engine.setPort(0, { service: 0, peer: 1 });
    engine.setPort(1, { sides: "service", peer: 0 });
    return new Way(engine, family, hasHeader);
  }

  /** Puts a frame of a flow into the batch. Checksums are whatever they are: they only move. */
  #put(index: number, { bytes: frame, port }: Frame, flow: number): void {
    const { arena, bytes, descriptors } = this.engine;
    const address = arena.address + index * STRIDE;
    bytes.set(frame, address);
    const { numberAt, portAt } = this.#family;
    const client = address + (numberAt[port] as number);
    bytes[client] = flow >> 16;
    bytes[client + 1] = flow >> 8;
    bytes[client + 2] = flow;
    const number = 20_000 + (flow % 1000);
    bytes[address + (portAt[port] as number)] = number >> 8;
    bytes[address + (portAt[port] as number) + 1] = number;
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

function client({ client: from, listener }: Family, flags: string, seq: number, payload: number) {
  const options = { flags, seq: ISN + seq, options: TIMESTAMPS };
  const packet = eth().ip(from, listener).tcp(20_000, 443, options);
  return { bytes: packet.payload(payload).bytes(), port: 0 };
}

function server({ client: to, target }: Family, flags: string, ack: number): Frame {
  const options = { flags, seq: 5000, ack: ISN + ack, options: TIMESTAMPS };
  return { bytes: eth().ip(target, to).tcp(8080, 20_000, options).bytes(), port: 1 };
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

async function createWays(family: Family, flowCount: number): Promise<Ways> {
  const ways = {} as Ways;
  for (const [name, placement] of Object.entries(PLACEMENTS)) {
    ways[name as keyof Ways] = await Way.create(family, placement, flowCount);
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
function check(ways: Ways, family: Family, flows: number): void {
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
      if (!same(answer, other) || !isMoved(family, sent, moved)) {
        throw new Error(`bench: packets of flow ${flow} are not what they are without a header`);
      }
    }
  }
}

/** Whether two frames differ in a number that is higher by the header, and a checksum that is as right. */
function isMoved(family: Family, sent: Uint8Array, moved: Uint8Array): boolean {
  const { addressesAt, sequenceAt, checksumAt } = family;
  const numberIn = (frame: Uint8Array) => new DataView(frame.buffer).getUint32(sequenceAt);
  const sumOf = (frame: Uint8Array) => internetChecksum(frame.subarray(addressesAt));
  const blank = (frame: Uint8Array) =>
    frame
      .slice()
      .fill(0, sequenceAt, sequenceAt + 4)
      .fill(0, checksumAt, checksumAt + 2);
  const isHigher = numberIn(moved) === numberIn(sent) + HEADER_BYTES;
  return isHigher && sumOf(sent) === sumOf(moved) && same(blank(sent), blank(moved));
}

/** @throws Error when what leaves is not what it must be */
export async function measureStreams(pairs = PAIRS, flowCounts = FLOWS): Promise<StreamCost[]> {
  const costs: StreamCost[] = [];
  const open = (way: Way) => way.open(OPENINGS);
  const sizes = Object.values(FAMILIES).flatMap((family) => {
    return flowCounts[family.name].map((flows) => ({ family, flows }));
  });
  for (const { family, flows } of sizes) {
    const room = flows + (2 * pairs + 1) * OPENINGS;
    const ways = await createWays(family, Math.max(1 << 18, Math.ceil(room * 1.05)));
    for (const way of Object.values(ways)) way.open(flows);
    const among = `among ${count(flows)} flows, ${family.name}`;
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
    check(ways, family, flows);
  }
  return costs;
}

if (import.meta.main) {
  const isSmoke = process.argv.includes("--smoke");
  const costs = await (isSmoke
    ? measureStreams(SMOKE_PAIRS, { IPv4: [1000], IPv6: [1000] })
    : measureStreams());
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
