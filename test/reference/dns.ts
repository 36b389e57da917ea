/**
 * The slow twin of the resolver's look-up: every rule of RFC 1034 4.3.2 and RFC 4592 as a search
 * over the list of all names, label by label.
 */

interface Entry {
  name: string;
}

interface Zone {
  apex: string;
  names: readonly Entry[];
}

const isAtOrBelow = (name: string[], above: string[]) =>
  above.length <= name.length && above.every((label, at) => name.at(at - above.length) === label);

/** "outside", "missing" or the name of the entry that answers; "" for an empty one. */
export function lookUp(zones: readonly Zone[], asked: string): string {
  const labels = asked.toLowerCase().split(".");
  const holding = zones.filter(({ apex }) => isAtOrBelow(labels, apex.split(".")));
  if (holding.length === 0) return "outside";
  const longest = Math.max(...holding.map(({ apex }) => apex.split(".").length));
  const same = holding.filter(({ apex }) => apex.split(".").length === longest);
  const names = same.flatMap((zone) => zone.names.map(({ name }) => name));
  if (names.includes(labels.join("."))) return labels.join(".");
  const exists = (path: string[]) =>
    path.length === longest || names.some((name) => isAtOrBelow(name.split("."), path));
  if (exists(labels)) return "";
  let encloser = labels;
  while (!exists(encloser)) encloser = encloser.slice(1);
  const star = ["*", ...encloser].join(".");
  return names.includes(star) ? star : "missing";
}
