/**
 * The lab in a terminal, like top: a pure function from the last two snapshots and the size of the
 * window to lines. Whoever calls it moves the cursor home and writes them.
 */

import { styleText } from "node:util";
import { hostPort } from "./metrics.ts";
import { dropped, type History, type LiveSnapshot } from "./snapshot.ts";

export interface Screen {
  columns: number;
  rows: number;
  /** Whether colours are understood. */
  isColored: boolean;
}

const GOOD = ["healthy", "available"];

/** Lines for the screen, none longer or more than fit. */
export function topLines(snapshot: LiveSnapshot, history: History, screen: Screen): string[] {
  const sample = history.samples.at(-1);
  const { flows, cpu } = snapshot;
  const upSeconds = Math.floor((snapshot.timeMs - snapshot.startedMs) / 1000);
  const lines = [
    `lab ${snapshot.lab}, up ${upSeconds} s, CPU ${fixed(sample?.cpuPercent)} % ` +
      `(${fixed((cpu.userMicros + cpu.systemMicros) / 1e6)} s in all)`,
    `${rate(sample?.bitsPerSecond)}bit/s  ${rate(sample?.packetsPerSecond)}packets/s  ` +
      `${rate(sample?.dropsPerSecond)}drops/s (${dropped(snapshot)} in all)`,
    `flows ${flows.active} (most ${flows.activeMax}), ${rate(sample?.flowsPerSecond)}new/s, ` +
      `${flows.created} in all`,
    "",
    ...table(
      ["RESOURCE", "KIND", "VPC", "FLOWS", "NEW", "PACKETS", "BYTES"],
      busiest(snapshot.resources).map((one) => [
        one.id,
        one.kind,
        one.vpc,
        `${one.flowsActive}`,
        `${one.flowsCreated}`,
        rate(one.packetsFromClient + one.packetsFromService).trim(),
        rate(one.bytesFromClient + one.bytesFromService).trim(),
      ]),
    ),
    ...table(
      ["NODE", "PROCESS", "STATE", "RESTARTS", "RESOURCES"],
      (snapshot.nodes ?? []).map(({ node, pid, isUp, restarts, resources }) => {
        const state = isUp ? "up" : "down";
        return [`${node}`, `${pid}`, state, `${restarts}`, resources.join(", ")];
      }),
    ),
    ...table(
      ["GROUP", "TARGET", "ZONE", "STATE", "WHY"],
      snapshot.targets.map(({ group, address, port, zone, state, reason, description }) => {
        return [group, hostPort(address, port), zone, state, description ?? reason ?? ""];
      }),
    ),
    ...table(
      ["ENDPOINT", "VPC", "STATE", "SERVICE"],
      snapshot.endpoints.map(({ id, vpc, state, service }) => [id, vpc, state, service]),
    ),
    ...table(
      ["CLIENT", "VIA", "SERVICE", "FLOWS", "BYTES"],
      snapshot.talks
        .toSorted((a, b) => b.bytes - a.bytes)
        .map((talk) => [
          `${talk.clientVpc} ${talk.client}`,
          talk.via,
          hostPort(talk.service, talk.servicePort),
          `${talk.flows}`,
          rate(talk.bytes).trim(),
        ]),
    ),
  ];
  return lines
    .slice(0, screen.rows)
    .map((line) => line.slice(0, screen.columns))
    .map((line) => (screen.isColored ? colored(line) : line));
}

function busiest<Of extends { packetsFromClient: number }>(resources: readonly Of[]): Of[] {
  return resources.toSorted((a, b) => b.packetsFromClient - a.packetsFromClient);
}

/** Columns as wide as their widest cell, and an empty line behind; nothing for no rows. */
function table(titles: string[], rows: string[][]): string[] {
  if (rows.length === 0) return [];
  const all = [titles, ...rows];
  const widths = titles.map((_, at) => Math.max(...all.map((row) => row[at]?.length ?? 0)));
  const line = (row: string[]) => row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ");
  return [...all.map((row) => line(row).trimEnd()), ""];
}

function colored(line: string): string {
  if (/^[A-Z]{2,} /.test(line)) return styleText("bold", line, { validateStream: false });
  const state = line.match(
    /\b(healthy|available|unhealthy|draining|rejected|initial|unused)\b/,
  )?.[0];
  if (state === undefined) return line;
  const look = GOOD.includes(state) ? "green" : "red";
  return line.replace(state, styleText(look, state, { validateStream: false }));
}

/** Such as "1.25 M", with a space behind for the unit. */
function rate(value = 0): string {
  const units: [number, string][] = [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  const [least, unit] = units.find(([least]) => value >= least) ?? [1, ""];
  return `${+(value / least).toPrecision(3)} ${unit}`;
}

function fixed(value = 0): string {
  return value.toFixed(1);
}
