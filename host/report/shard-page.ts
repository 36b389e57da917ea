/**
 * The sharding calculator's page: the fleet with the nodes of some tenants, the overlap table and
 * the blast radius, drawn as SVG without any script. Pure: a result goes in, the page comes out.
 */

import { escaped, pageDocument } from "../page/document.ts";
import type { ShardResult } from "../shard/result.ts";
import { fleetLine, PLACEMENTS, shardReport } from "./shard.ts";
import { share } from "./units.ts";

/** Tenants that are drawn; with more, colours could no longer be told apart. */
const DRAWN_MAX = 8;
const COLORS = "#1f6feb #c2410c #2e7d32 #8e24aa #00838f #b8860b #ad1457 #546e7a".split(" ");
const CELL = 22;
/** What a letter of the drawings' text takes at most, mostly. */
const LETTER = 7;

export function shardPage(result: ShardResult): string {
  const title = `Shuffle sharding: ${fleetLine(result)}`;
  const main = `<h1>Shuffle sharding</h1>
<p class="sub">${escaped(fleetLine(result))}</p>
<section class="charts">
${figure("fleet", "Nodes of each tenant", fleet(result))}
${figure("overlap", "Overlap with another tenant", overlaps(result))}
${figure("blast", "Other tenants when one poisons its nodes", blasts(result))}
</section>
<details open><summary>Text report</summary><pre>${escaped(shardReport(result))}</pre></details>`;
  return pageDocument({ title, style: STYLE, main });
}

const STYLE = `
svg { max-width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
.node { fill: var(--page); stroke: var(--line); } .bar { fill: var(--first); }
.lost { fill: var(--second); } .some { fill: #d9a441; } .whole { fill: var(--first); }
.charts { margin: 0 0 16px; }
`;

function figure(id: string, title: string, drawing: string): string {
  return `<figure id="chart-${id}"><figcaption>${title}</figcaption>${drawing}</figure>`;
}

/** One square a node, zone under zone; a tenant's nodes carry a stripe of its colour. */
function fleet({ nodes, zones, assignments }: ShardResult): string {
  const drawn = assignments.slice(0, DRAWN_MAX);
  const perZone = Math.ceil(nodes / zones);
  const columns = Math.min(20, perZone);
  const rowsPerZone = Math.ceil(perZone / columns);
  const shapes: string[] = [];
  let node = 0;
  for (let zone = 0; zone < zones; zone++) {
    const size = Math.floor((nodes + zones - 1 - zone) / zones);
    for (let at = 0; at < size; at++, node++) {
      const x = (at % columns) * CELL;
      const y = (Math.floor(at / columns) + zone * (rowsPerZone + 0.5)) * CELL;
      shapes.push(
        `<rect class="node" x="${x}" y="${y}" width="${CELL - 2}" height="${CELL - 2}"/>`,
      );
      const users = drawn.flatMap((one, tenant) => (one.nodes.includes(node) ? [tenant] : []));
      for (const [place, tenant] of users.entries()) {
        const width = (CELL - 2) / users.length;
        shapes.push(
          `<rect fill="${COLORS[tenant]}" x="${x + place * width}" y="${y}" width="${width}" height="${CELL - 2}"/>`,
        );
      }
    }
  }
  const legendTop = zones * (rowsPerZone + 0.5) * CELL + 8;
  for (const [tenant, { tenant: name }] of drawn.entries()) {
    const y = legendTop + tenant * 16;
    shapes.push(`<rect fill="${COLORS[tenant]}" x="0" y="${y}" width="10" height="10"/>`);
    shapes.push(`<text x="16" y="${y + 9}">${escaped(name)}</text>`);
  }
  const longest = Math.max(0, ...drawn.map(({ tenant }) => tenant.length));
  const width = Math.max(columns * CELL, 16 + LETTER * longest);
  return svg(width, legendTop + drawn.length * 16 + 4, shapes);
}

function overlaps({ overlap }: ShardResult): string {
  const shapes = overlap.flatMap(({ overlap: nodes, percent }, row) => {
    const width = Math.max(1, 2.6 * Number(percent));
    return [
      `<text x="0" y="${row * 24 + 15}">${nodes}</text>`,
      `<rect class="bar" x="20" y="${row * 24 + 2}" width="${width.toFixed(1)}" height="18"/>`,
      `<text x="${(26 + width).toFixed(1)}" y="${row * 24 + 15}">${percent} %</text>`,
    ];
  });
  return svg(400, overlap.length * 24 + 4, shapes);
}

/** Untouched, with fewer nodes, with none: shares of the other tenants, over all attacks. */
function blasts({ blast, size }: ShardResult): string {
  const shapes = blast.flatMap(({ placement, tenantsByLoss }, row) => {
    const all = tenantsByLoss.reduce((sum, tenants) => sum + tenants, 0);
    const untouched = tenantsByLoss[0] ?? 0;
    const lost = tenantsByLoss[size] ?? 0;
    const parts = [
      ["whole", untouched],
      ["some", all - untouched - lost],
      ["lost", lost],
    ] as const;
    let x = 0;
    const y = row * 52 + 18;
    const bars = parts.map(([name, tenants]) => {
      const width = (380 * tenants) / all;
      x += width;
      return `<rect class="${name}" x="${(x - width).toFixed(2)}" y="${y}" width="${width.toFixed(2)}" height="18"/>`;
    });
    const text = `${PLACEMENTS[placement]}: ${share(lost, all)} of the others lose every node`;
    return [`<text x="0" y="${y - 5}">${text}</text>`, ...bars];
  });
  return svg(400, blast.length * 52 + 4, shapes);
}

function svg(width: number, height: number, shapes: readonly string[]): string {
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" role="img">${shapes.join("")}</svg>`;
}
