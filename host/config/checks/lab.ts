/** Checks of a lab's machines: where they stand, and that no address is two things. */

import { addressBytes } from "../../address.ts";
import type { Directory } from "../../control/directory.ts";
import { zoneName } from "../../control/zones.ts";
import { type Path, type Problem, wrongValue } from "../path.ts";
import { placedAddresses } from "./placement.ts";

/** Where hosts stand that are in no VPC. */
export const INTERNET = "internet";

/** Low bits of ports that tell workers apart (io/steering.ts). */
const LANE_MASK = 63;

export function* labProblems(directory: Directory): Generator<Problem> {
  const { config } = directory;
  yield* steeringProblems(directory);
  yield* nodeProblems(directory);
  const owners = new Map<string, Path>();
  for (const { path, vpc, address } of placedAddresses(directory)) {
    owners.set(`${vpc} ${addressBytes(address)}`, path);
  }
  for (const [name, { connectivity, addresses }] of Object.entries(config.nat_gateways)) {
    if (connectivity !== "public") continue;
    for (const [index, address] of addresses.entries()) {
      const path = ["nat_gateways", name, "addresses", index];
      owners.set(`${INTERNET} ${addressBytes(address)}`, path);
    }
  }
  for (const [name, { vpc, addresses }] of Object.entries(config.lab?.hosts ?? {})) {
    const path = ["lab", "hosts", name];
    if (vpc !== INTERNET && !(vpc in config.vpcs)) {
      yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC, or internet");
      return;
    }
    for (const [index, address] of addresses.entries()) {
      const at = [...path, "addresses", index];
      if (vpc !== INTERNET && !directory.isInVpc(vpc, address)) {
        yield wrongValue(config, at, `lies outside the ranges of ${vpc}`);
      }
      const key = `${vpc} ${addressBytes(address)}`;
      const owner = owners.get(key);
      if (owner) yield wrongValue(config, at, `is also at ${owner.join(".")}`);
      owners.set(key, at);
    }
  }
  yield* nameProblems(directory);
}

const DNS_NAME_MAX = 253;
/** Labels of a DNS name; the last has room for a hyphen and 16 hexadecimal digits. */
const BALANCER_NAME = /^(\w([\w-]{0,61}\w)?\.)*\w[\w-]{0,45}$/;

/** What would be no name in the lab's DNS. */
function* nameProblems(directory: Directory): Generator<Problem> {
  const { config } = directory;
  if (config.lab === undefined) return;
  for (const name of Object.keys(config.load_balancers)) {
    if (BALANCER_NAME.test(name)) continue;
    const path = ["load_balancers", name];
    yield { path, message: "makes no DNS name; in a lab it is 1 to 46 letters, digits and dashes" };
  }
  yield* zoneNameProblems(directory);
  for (const [zone, records] of Object.entries(config.lab.dns.zones)) {
    for (const [index, { name, addresses, cname, texts }] of records.entries()) {
      const path = ["lab", "dns", "zones", zone, index];
      const kinds = [addresses ?? texts, cname].filter((one) => one !== undefined).length;
      if (kinds !== 1) yield { path, message: "has not either a cname or addresses and texts" };
      if (name === "@" && cname !== undefined) {
        yield { path: [...path, "cname"], message: "is not possible for a zone itself" };
      }
      if (`${name}.${zone}`.length > DNS_NAME_MAX) {
        const message = `"${name}" makes a name of more than ${DNS_NAME_MAX} characters`;
        yield { path: [...path, "name"], message };
      }
    }
  }
}

/** Zonal names tell the zones of a resource apart by what their account calls them. */
function* zoneNameProblems({ config, subnets: entries }: Directory): Generator<Problem> {
  for (const kind of ["load_balancers", "endpoints"] as const) {
    for (const [id, { vpc, subnets }] of Object.entries(config[kind])) {
      const zones = new Map<string, string>();
      for (const subnet of Object.keys(subnets)) {
        const zone = entries.get(subnet)?.zone ?? "";
        const account = config.vpcs[vpc]?.account ?? "";
        const name = zoneName(config.accounts, account, zone, config.region);
        const other = zones.get(name);
        zones.set(name, zone);
        if (other === undefined) continue;
        const message = `lies in ${zone}, which the account calls ${name}, as it does ${other}`;
        yield { path: [kind, id, "subnets", subnet], message };
      }
    }
  }
}

function* nodeProblems({ config }: Directory): Generator<Problem> {
  const { nodes, workers } = config.lab ?? {};
  if (nodes === undefined) return;
  if (workers !== 1) {
    yield { path: ["lab", "workers"], message: `${workers}: a lab with nodes has one in each` };
  }
  if ((nodes.per_resource ?? 1) > nodes.count) {
    const path = ["lab", "nodes", "per_resource"];
    yield { path, message: `${nodes.per_resource} is more than the ${nodes.count} nodes` };
  }
}

/**
 * Several workers know a flow's other side by its ports: a target's port must have the low bits of
 * its listener's, as 8080 has those of 80.
 */
function* steeringProblems({ config }: Directory): Generator<Problem> {
  if ((config.lab?.workers ?? 1) === 1) return;
  for (const [name, { listeners }] of Object.entries(config.load_balancers)) {
    for (const [index, { port, forward }] of listeners.entries()) {
      const groups =
        typeof forward === "string" ? [forward] : forward.map((one) => one.target_group);
      for (const group of groups) {
        const { targets = [], port: groupPort = port } = config.target_groups[group] ?? {};
        const ports = [groupPort, ...targets.map((target) => target.port ?? groupPort)];
        const other = ports.find((one) => ((one ^ port) & LANE_MASK) !== 0);
        if (other === undefined) continue;
        const path = ["load_balancers", name, "listeners", index, "port"];
        const message = `${port} and the target port ${other} of ${group} differ modulo 64, which needs lab.workers: 1`;
        yield { path, message };
      }
    }
  }
}
