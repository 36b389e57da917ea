/** The sharding calculator's text: overlap table, packing, shards of tenants, blast radius. */
import type { ShardResult } from "../shard/result.ts";
import { type Column, table } from "./table.ts";
import { count, counted, share } from "./units.ts";

const RIGHT = (title: string): Column => ({ title, align: "right" });
const LEFT = (title: string): Column => ({ title, align: "left" });

export const PLACEMENTS = {
  plain: "plain sharding",
  shuffled: "shuffle sharding",
  stateful: "with a maximum overlap",
} as const;

export function shardReport(result: ShardResult): string {
  const parts = [overlapPart(result), packingPart(result), assignmentPart(result)];
  parts.push(blastPart(result), ...deckParts(result));
  return parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n");
}

/** One line about the fleet. */
export function fleetLine({ nodes, size, zones, shardCount }: ShardResult): string {
  const where = zones > 1 ? ` in ${zones} zones, ${size / zones} from each` : "";
  return `${counted(nodes, "node")}${where}; shards of ${size}: ${grouped(shardCount)} there are`;
}

function overlapPart(result: ShardResult): string[] {
  const rows = result.overlap.map(({ overlap, ways, percent }) => [
    String(overlap),
    grouped(ways),
    `${percent} %`,
  ]);
  const titles = [RIGHT("overlap"), RIGHT("shards"), RIGHT("chance")];
  return [fleetLine(result), "", ...table(titles, rows)];
}

function packingPart({ packing }: ShardResult): string[] {
  if (!packing) return [];
  const { overlapMax, shards, bound, isMaximal, loadMin, loadMax, pairs } = packing;
  const rows = packing.pairsByOverlap.map((found, overlap) => [
    String(overlap),
    count(found),
    share(found, pairs),
  ]);
  return [
    `overlap at most ${overlapMax}: ${counted(shards, "shard")}, ${share(shards, Number(bound))} of ` +
      `the bound ${grouped(bound)}${isMaximal ? "; no other one fits" : ""}`,
    `a node stands in ${count(loadMin)} to ${count(loadMax)} of them`,
    "",
    ...table([RIGHT("overlap"), RIGHT("pairs"), RIGHT("share")], rows),
  ];
}

function assignmentPart({ assignments, sharder }: ShardResult): string[] {
  if (assignments.length === 0) return [];
  const rows = assignments.map(({ tenant, nodes }) => [tenant, nodes.join(" ")]);
  return table([LEFT("tenant"), LEFT(`nodes (${sharder})`)], rows);
}

function blastPart({ blast, size }: ShardResult): string[] {
  const rows = blast.map(({ placement, tenantsByLoss, deadMean, deadMax }) => {
    const all = tenantsByLoss.reduce((sum, tenants) => sum + tenants, 0);
    return [
      PLACEMENTS[placement],
      share(tenantsByLoss[0] ?? 0, all),
      share(all - (tenantsByLoss[0] ?? 0) - (tenantsByLoss[size] ?? 0), all),
      share(deadMean, 1),
      share(deadMax, 1),
    ];
  });
  const attacks = counted(blast[0]?.attacks ?? 0, "tenant");
  const titles = [
    LEFT(""),
    RIGHT("untouched"),
    RIGHT("fewer nodes"),
    RIGHT("no node"),
    RIGHT("worst"),
  ];
  return [
    `blast radius: ${attacks} in turn poison all their nodes; what becomes of the others`,
    "",
    ...table(titles, rows),
  ];
}

function deckParts({ deck = [] }: ShardResult): string[][] {
  return deck.map(({ nodes, size, overlapMax, rows }) => [
    `deck: ${nodes} nodes, shards of ${size}` +
      (overlapMax === undefined ? "" : `, overlap at most ${overlapMax}`),
    "",
    ...table(
      [RIGHT("overlap"), RIGHT("printed"), RIGHT("exact"), LEFT("")],
      rows.map(({ overlap, printed, exact, remark }) => [
        String(overlap),
        printed,
        `${exact} %`,
        remark ?? "",
      ]),
    ),
  ]);
}

/** An integer in decimal with thousands separated, however long. */
export function grouped(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, ",");
}
