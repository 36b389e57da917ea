/**
 * The live benchmark: the engine between two namespaces beside the kernel's NAT, HAProxy and
 * slirp4netns between the same two, and a bare wire (live/ways.ts).
 *
 *   node bench/live.ts [PART…] [--passes N]     parts: tcp cubic streams proxy udp latency
 *                                               connections idle; default all
 *
 * Ways take turns in every pass. A ratio is that of the medians; the range stands beside it. A turn during
 * which a hypervisor gave the cores to others is taken again. On a machine of two cores client, server and
 * engine share them, so absolute figures are of the whole arrangement. All of them are in this session,
 * which goes before others while this runs. Needs root.
 */
import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { parseArgs } from "node:util";
import { table } from "../host/report/table.ts";
import { significant } from "../host/report/units.ts";
import { type Look, medianOf, PARTS, type Part } from "./live/parts.ts";
import { makeWays, type Way, type Ways } from "./live/ways.ts";
import { coreTime } from "./machine.ts";

/** A turn that lost more of the cores to other machines of the host is taken again, so often at most. */
const STOLEN_MAX = 0.05;
const TRIES_MAX = 8;

/** Figures of one part by way and what was measured, one for each pass. */
type Figures = Map<string, number[]>;

/** Turns that were taken again, and those that lost as much in every try and count all the same. */
interface Disturbed {
  again: number;
  counted: number;
}
/** One turn of a way, by figure; again while too much of it was stolen. */
async function takeTurn(part: Part, way: Way, disturbed: Disturbed): Promise<Map<string, number>> {
  for (let tries = TRIES_MAX; ; tries--) {
    const noted = new Map<string, number>();
    const before = coreTime();
    await part.measure(way, (figure, value) => noted.set(figure, value));
    const after = coreTime();
    if (after.stolen - before.stolen <= STOLEN_MAX * (after.all - before.all)) return noted;
    if (tries === 1) {
      disturbed.counted++;
      return noted;
    }
    disturbed.again++;
  }
}

async function runPart(
  ways: Ways,
  part: Part,
  passes: number,
): Promise<{ figures: Figures; disturbed: Disturbed }> {
  const figures: Figures = new Map();
  const disturbed = { again: 0, counted: 0 };
  await ways.setCongestion(part.congestion);
  for (let turn = passes * (part.turns ?? 1); turn > 0; turn--) {
    for (const name of part.ways) {
      const way = ways.all[name];
      if (way === undefined) continue;
      for (const [figure, value] of await takeTurn(part, way, disturbed)) {
        const key = `${name}\t${figure}`;
        figures.set(key, [...(figures.get(key) ?? []), value]);
      }
    }
  }
  return { figures, disturbed };
}

function printPart(name: string, part: Part, figures: Figures, disturbed: Disturbed): void {
  const rows = [...figures].map(([key, values]) => {
    const [way = "", figure = ""] = key.split("\t");
    const range = `${significant(Math.min(...values))} to ${significant(Math.max(...values))}`;
    return [way, figure, significant(medianOf(values)), range];
  });
  const columns = ["way", "figure", "median", "range"].map((title, at) => ({
    title,
    align: at < 2 ? ("left" as const) : ("right" as const),
  }));
  const all: Look<number[]> = (way, figure) => figures.get(`${way}\t${figure}`) ?? [];
  const median: Look<number> = (way, figure) => medianOf(all(way, figure));
  const goals = part.goals.map(({ name: goalName, value, goal, is }) => {
    const got = value(median, all);
    const wanted = goal === undefined ? "-" : `${is} ${goal}`;
    if (Number.isNaN(got)) return [goalName, wanted, "-", "not measured"];
    if (goal === undefined) return [goalName, wanted, significant(got), "-"];
    const isMet = is === "at least" ? got >= goal : got <= goal;
    return [goalName, wanted, significant(got), isMet ? "yes" : "no"];
  });
  const goalColumns = ["ratio", "goal", "here", "met"].map((title, at) => ({
    title,
    align: at === 0 ? ("left" as const) : ("right" as const),
  }));
  const { again, counted } = disturbed;
  const stolen = `over ${STOLEN_MAX * 100} % of the cores stolen: ${again} turns taken again, ${counted} counted`;
  const lines = [name, ...table(columns, rows), "", ...table(goalColumns, goals), stolen, "", ""];
  process.stdout.write(lines.join("\n"));
}

function words(): { parts: string[]; passes: number } {
  const { values, positionals } = parseArgs({
    options: { passes: { type: "string", default: "3" } },
    allowPositionals: true,
  });
  const unknown = positionals.find((name) => !(name in PARTS));
  if (unknown) throw new Error(`${unknown}: is not one of ${Object.keys(PARTS).join(", ")}`);
  return {
    parts: positionals.length > 0 ? positionals : Object.keys(PARTS),
    passes: Number(values.passes),
  };
}

/**
 * Gives this session's programs, clients and servers of every way among them, a larger share of the cores
 * than other sessions have (sched(7), autogroup); returns what puts that back.
 */
function goFirst(): () => void {
  const file = "/proc/self/autogroup";
  try {
    const before = /nice (-?\d+)/.exec(readFileSync(file, "utf8"))?.[1] ?? "0";
    writeFileSync(file, "-20");
    return () => writeFileSync(file, before);
  } catch {
    return () => undefined; // A kernel without autogroups.
  }
}

const { parts, passes } = words();
const ways = await makeWays(new Set(parts.flatMap((name) => (PARTS[name] as Part).ways)));
const stepBack = goFirst();
try {
  const load = os.loadavg()[0] as number;
  const own = readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
  const cpu = os.cpus()[0]?.model.trim();
  process.stdout.write(
    `${cpu}, ${os.cpus().length} cores, Linux ${os.release()}, ${own}, Node ${process.versions.node}, load ${load}\n\n`,
  );
  for (const name of parts) {
    const part = PARTS[name] as Part;
    const { figures, disturbed } = await runPart(ways, part, passes);
    printPart(name, part, figures, disturbed);
  }
  for (const line of ways.skipped) process.stdout.write(`left out: ${line}\n`);
} finally {
  stepBack();
  await ways.end();
}
