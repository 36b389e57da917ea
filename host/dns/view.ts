/**
 * What a VPC's resolver knows by itself: zones with names in them, looked up as RFC 1034 and RFC
 * 4592 (wildcards) say. Plain data goes in; a view never changes, a new one takes its place.
 *
 * Names are kept in lower case without the last dot. A zone that lies inside another one hides
 * that part of it, which is how a private DNS name overrides a service's public one.
 */

import { ConfigError } from "../errors.ts";

/** `dns_record.client_routing_policy` of a load balancer. */
export type RoutingPolicy =
  | "any_availability_zone"
  | "partial_availability_zone_affinity"
  | "availability_zone_affinity";

export interface DnsAddress {
  /** IPv4 or IPv6, in text form. */
  address: string;
  /** Availability zone that it stands in; needed where a routing policy asks for it. */
  zone?: string;
}

/** One name: addresses and texts, or an alias. The first label may be `*`. */
export interface DnsName {
  name: string;
  addresses?: readonly DnsAddress[];
  /** How clients' own zones are preferred; default "any_availability_zone". */
  policy?: RoutingPolicy;
  texts?: readonly string[];
  cname?: string;
}

/** Names below (or at) an apex, for which the resolver is the authority. */
export interface DnsZone {
  apex: string;
  names: readonly DnsName[];
}

/** What a view has for a name. `zone` is the apex of the zone that decides. */
export type Found =
  | { kind: "outside" }
  | { kind: "missing"; zone: string }
  | { kind: "name"; zone: string; entry: DnsName };

interface Zone {
  names: Map<string, DnsName>;
  /** Names that exist only because a longer one does (RFC 4592, 2.2.2). */
  empty: Set<string>;
}

const NAME_BYTES_MAX = 253;
const LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

export class DnsView {
  readonly #zones = new Map<string, Zone>();

  /** @throws ConfigError for a name that cannot be one, or that stands twice in a zone */
  constructor(zones: readonly DnsZone[]) {
    for (const { apex, names } of zones) {
      const key = normalName(apex, false);
      const zone = this.#zones.get(key) ?? { names: new Map(), empty: new Set() };
      this.#zones.set(key, zone);
      zone.empty.add(key);
      for (const entry of names) addName(zone, key, entry);
    }
  }

  /** Apexes, for show. */
  get apexes(): string[] {
    return [...this.#zones.keys()];
  }

  /** The entry for a name in any letter case, without the last dot. */
  find(asked: string): Found {
    const name = asked.toLowerCase();
    const apex = this.#apexOf(name);
    const zone = apex === undefined ? undefined : this.#zones.get(apex);
    if (apex === undefined || zone === undefined) return { kind: "outside" };
    const entry = zone.names.get(name);
    if (entry) return { kind: "name", zone: apex, entry };
    if (zone.empty.has(name)) return { kind: "name", zone: apex, entry: { name } };
    const source = wildcardFor(zone, name, apex);
    if (source) return { kind: "name", zone: apex, entry: { ...source, name } };
    return { kind: "missing", zone: apex };
  }

  #apexOf(name: string): string | undefined {
    for (const ancestor of ancestors(name)) if (this.#zones.has(ancestor)) return ancestor;
    return undefined;
  }
}

function addName(zone: Zone, apex: string, entry: DnsName): void {
  const name = normalName(entry.name, true);
  if (name !== apex && !name.endsWith(`.${apex}`)) {
    throw new ConfigError(`dns: "${name}" is not inside its zone ${apex}`);
  }
  if (zone.names.has(name)) throw new ConfigError(`dns: "${name}" stands in ${apex} twice`);
  if (entry.cname !== undefined && (entry.addresses?.length || entry.texts?.length)) {
    throw new ConfigError(`dns: "${name}" is an alias and more, which RFC 1034 rules out`);
  }
  if (entry.cname !== undefined && name === apex) {
    throw new ConfigError(`dns: "${name}" is a zone's apex, which cannot be an alias`);
  }
  const cname = entry.cname === undefined ? {} : { cname: normalName(entry.cname, false) };
  zone.names.set(name, { ...entry, name, ...cname });
  for (const ancestor of ancestors(name)) {
    if (ancestor === apex) break;
    if (ancestor !== name) zone.empty.add(ancestor);
  }
}

/** The wildcard that answers for a name: the one at its closest encloser, and no other. */
function wildcardFor(zone: Zone, name: string, apex: string): DnsName | undefined {
  for (const encloser of ancestors(name)) {
    if (encloser === name) continue;
    if (encloser === apex || zone.names.has(encloser) || zone.empty.has(encloser)) {
      return zone.names.get(`*.${encloser}`);
    }
  }
  return undefined;
}

/** A name, its parent, and so on up to the last label. */
function* ancestors(name: string): Generator<string> {
  let rest = name;
  for (;;) {
    yield rest;
    const dot = rest.indexOf(".");
    if (dot < 0) return;
    rest = rest.slice(dot + 1);
  }
}

/** Lower case, no last dot. @throws ConfigError when labels or length are out of range */
export function normalName(name: string, mayBeWildcard: boolean): string {
  const normal = name.toLowerCase().replace(/\.$/, "");
  const labels = normal.split(".");
  const isStar = mayBeWildcard && labels[0] === "*" && labels.length > 1;
  const isGood = labels.every((label, at) => LABEL.test(label) || (at === 0 && isStar));
  if (!isGood || normal.length > NAME_BYTES_MAX) {
    const range = `labels of 1 to 63 letters, digits and hyphens, ${NAME_BYTES_MAX} in all`;
    throw new ConfigError(`dns: "${name}" is not a name (${range})`);
  }
  return normal;
}
