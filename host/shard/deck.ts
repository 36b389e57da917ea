/**
 * The three overlap tables of "Deep Dive on AWS PrivateLink" (January 2018) beside the exact
 * numbers. Each fits a fleet: the first 8 nodes and shards of 3, the others 100 and 5, the third
 * with overlaps above 2 ruled out.
 */
import { choose, percent } from "./exact.ts";
import { latticeOf } from "./lattice.ts";
import { conditioned, overlapTable } from "./overlap.ts";

export interface DeckRow {
  overlap: number;
  /** As printed, with its unit or without. */
  printed: string;
  /** Exact, in percent. */
  exact: string;
  /** What is wrong with the printed entry; absent where it is right to its digits. */
  remark?: string;
}

export interface DeckTable {
  nodes: number;
  size: number;
  overlapMax?: number;
  rows: DeckRow[];
}

const PRINTED = [
  { nodes: 8, size: 3, printed: ["18%", "54%", "26%", "2%"] },
  { nodes: 100, size: 5, printed: ["77%", "21%", "1.8%", "0.06%", "0.0006", "0.00000013"] },
  { nodes: 100, size: 5, overlapMax: 2, printed: ["77%", "21%", "1.8%", "0%", "0%", "0%"] },
];

/** By table and overlap. */
const REMARKS: Record<string, string> = {
  "0:2": "26.786 rounds to 27; cut to 26, the column sums to 100",
  "1:4": "right, but for the missing percent sign",
  "1:5": `10 times too small: 1 of ${choose(100, 5)} is 0.0000013 %`,
};

export function deckTables(): DeckTable[] {
  return PRINTED.map(({ nodes, size, overlapMax, printed }, number) => {
    const all = overlapTable(latticeOf(nodes, size));
    const { ways, shardCount } = overlapMax === undefined ? all : conditioned(all, overlapMax);
    const rows = printed.map((entry, overlap): DeckRow => {
      const remark = REMARKS[`${number}:${overlap}`];
      const exact = percent(ways[overlap] as bigint, shardCount);
      return { overlap, printed: entry, exact, ...(remark && { remark }) };
    });
    return { nodes, size, ...(overlapMax !== undefined && { overlapMax }), rows };
  });
}
