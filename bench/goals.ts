/** The goals of the engine's speed, each held against what a run has measured. Pure. */
import type { BenchResult, FileRow, FlowsRow, Goal } from "./result.ts";

/** Figures of a run from which goals are judged; `large` is the row of the large capture. */
export type Measured = Pick<
  BenchResult,
  "mode" | "flows" | "capacity" | "host" | "files" | "capture"
> & { large: FileRow | undefined };

interface Judged {
  name: string;
  is: Goal["is"];
  goal: number;
  unit: string;
  value: number | undefined;
  /** Why there is no value. */
  otherwise: string;
}

const K = 1000;
const M = 1_000_000;
const CAPACITY_FLOWS = 50 * M;
const HEAP_BYTES = 64 * 1024;
const NO_TWIN = "no C twin";
const NO_SIZE = "not in this run";

export function judge(measured: Measured): Goal[] {
  const all = [...flowGoals(measured), ...hostGoals(measured), ...fileGoals(measured)];
  return all.map(({ name, is, goal, unit, value, otherwise }) => {
    if (value === undefined) return { name, goal, is, unit, reason: otherwise };
    return { name, goal, is, unit, value, met: is === "atMost" ? value <= goal : value >= goal };
  });
}

function flowGoals({ flows, capacity }: Measured): Judged[] {
  const at = (count: number) => flows.find((row) => row.flows === count);
  const large = at(M);
  const atLeast = (name: string, goal: number, value: number | undefined): Judged => ({
    name,
    is: "atLeast",
    goal,
    unit: "x",
    value,
    otherwise: NO_SIZE,
  });
  const twins = [1, K, 10 * K].map((thousands): Judged => {
    const row = at(thousands * K);
    const ratio = row?.over.twin;
    const name = `time of WASM over C twin, ${flowsText(thousands * K)} flows`;
    const otherwise = row ? NO_TWIN : NO_SIZE;
    return { name, is: "atMost", goal: 1.35, unit: "x", value: ratio, otherwise };
  });
  const prototypes = [1, K, 10 * K].map((thousands): Judged => {
    const row = at(thousands * K);
    const ratio = row?.over.prototype;
    const name = `time of WASM over the prototype, ${flowsText(thousands * K)} flows`;
    return { name, is: "atMost", goal: 1.6, unit: "x", value: ratio, otherwise: NO_SIZE };
  });
  const ipv4 = capacity.filter(({ name }) => name === "IPv4");
  const bytesPerFlow = Math.max(...ipv4.map((row) => row.bytesPerFlow));
  const whole = ipv4.find((row) => row.flows >= CAPACITY_FLOWS / 2);
  return [
    ...twins,
    ...prototypes,
    atLeast("batches of 128 over packet by packet, 1 M", 3, large && large.single / large.wasm.min),
    {
      name: "cost at 10 M flows over that at 1 k",
      is: "atMost",
      goal: 2.5,
      unit: "x",
      value: overFirst(at(10 * M), at(K)),
      otherwise: NO_SIZE,
    },
    atLeast("over good typed-array TypeScript, 1 M", 3, speedup(large, "typed")),
    atLeast("over idiomatic TypeScript, 1 M", 30, speedup(large, "idiomatic")),
    {
      ...atLeast("new flows beside 1 M, room for 2 M", 5, large && K / large.fresh.median),
      unit: "M/s",
    },
    {
      ...atLeast("new flows beside 1 M, room for 1.25 M", 5, large && K / large.freshFull.median),
      unit: "M/s",
    },
    {
      name: "table bytes per IPv4 flow, to the first refusal",
      is: "atMost",
      goal: 72,
      unit: "bytes",
      value: ipv4.length > 0 ? bytesPerFlow : undefined,
      otherwise: NO_SIZE,
    },
    {
      ...atLeast("IPv4 flows in one 4 GiB memory", 50, whole && whole.flows / M),
      unit: "M",
      otherwise: "--full",
    },
  ];
}

export function flowsText(flows: number): string {
  return flows >= M ? `${flows / M} M` : flows >= K ? `${flows / K} k` : String(flows);
}

function overFirst(row: FlowsRow | undefined, first: FlowsRow | undefined): number | undefined {
  return row && first && row.wasm.min / first.wasm.min;
}

function speedup(row: FlowsRow | undefined, twin: "typed" | "idiomatic"): number | undefined {
  const other = row?.[twin];
  return row && other && other.min / row.wasm.min;
}

function hostGoals({ host, mode }: Measured): Judged[] {
  const otherwise = NO_SIZE;
  return [
    {
      name: "crossing JavaScript to WASM, per packet of 128",
      is: "atMost",
      goal: 1,
      unit: "ns",
      value: host.crossingNs,
      otherwise,
    },
    {
      name: "heap growth over 10 M packets",
      is: "atMost",
      goal: HEAP_BYTES,
      unit: "bytes",
      value: mode === "smoke" ? undefined : Math.max(0, host.heapGrowthBytes),
      otherwise,
    },
    {
      name: "first batches of a process over later, empty caches",
      is: "atMost",
      goal: 1.2,
      unit: "x",
      value: host.firstNs / host.emptiedNs,
      otherwise,
    },
  ];
}

function fileGoals({ files, mode, large }: Measured): Judged[] {
  const row = (begin: string) => files.find(({ name }) => name.startsWith(begin));
  const over = (found: FileRow | undefined, other: string) => {
    return mode === "smoke" ? undefined : found?.over[other];
  };
  const goal = (name: string, least: number, value: number | undefined, otherwise: string) =>
    ({ name, is: "atLeast", goal: least, unit: "x", value, otherwise }) as const;
  const twin = mode === "smoke" ? NO_SIZE : NO_TWIN;
  const tcprewrite = mode === "smoke" ? NO_SIZE : "no tcprewrite";
  const process = row("whole process");
  return [
    goal(
      "IMIX read and translated, C twin's time over ours",
      0.75,
      over(row("read and"), "C twin"),
      twin,
    ),
    goal("the same with output", 0.75, over(row("read, translate"), "C twin"), twin),
    goal("over tcprewrite, processes, 200 MB", 2.5, over(process, "tcprewrite"), tcprewrite),
    goal(
      "over tcprewrite, processes, 1 GB",
      4,
      over(large, "tcprewrite"),
      mode === "full" ? "no tcprewrite" : "--full",
    ),
    goal(
      "record walk over pcap-parser, in memory",
      10,
      over(row("record"), "pcap-parser"),
      NO_SIZE,
    ),
  ];
}
