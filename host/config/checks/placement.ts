/** Checks of where resources stand: in which subnets, with which addresses, behind which groups. */

import { addressBytes } from "../../address.ts";
import { contains, isReserved } from "../../cidr.ts";
import type { Directory } from "../../control/directory.ts";
import { type Path, type Problem, wrongValue } from "../path.ts";

/** An address that a resource has in a VPC. */
export interface Placed {
  path: Path;
  vpc: string;
  subnet: string;
  address: string;
}

/** Every address that load balancers, endpoints, mount targets and private gateways have. */
export function placedAddresses({ config, subnets }: Directory): Placed[] {
  const placed: Placed[] = [];
  const add = (path: Path, subnet: string, address: string | undefined) => {
    const vpc = subnets.get(subnet)?.vpc;
    if (address !== undefined && vpc !== undefined) placed.push({ path, vpc, subnet, address });
  };
  for (const [name, { subnets: nodes }] of Object.entries(config.load_balancers)) {
    for (const [subnet, node] of Object.entries(nodes)) {
      const path = ["load_balancers", name, "subnets", subnet];
      add([...path, "address"], subnet, node.address);
      for (const [index, address] of (node.secondary_addresses ?? []).entries()) {
        add([...path, "secondary_addresses", index], subnet, address);
      }
      add([...path, "ipv6_address"], subnet, node.ipv6_address);
    }
  }
  for (const [name, { subnets: interfaces }] of Object.entries(config.endpoints)) {
    for (const [subnet, { address, ipv6_address }] of Object.entries(interfaces)) {
      const path = ["endpoints", name, "subnets", subnet];
      add([...path, "address"], subnet, address);
      add([...path, "ipv6_address"], subnet, ipv6_address);
    }
  }
  for (const [name, { subnet, address }] of Object.entries(config.mount_targets)) {
    add(["mount_targets", name, "address"], subnet, address);
  }
  for (const [name, { subnet, connectivity, addresses }] of Object.entries(config.nat_gateways)) {
    if (connectivity !== "private") continue;
    for (const [index, address] of addresses.entries()) {
      add(["nat_gateways", name, "addresses", index], subnet, address);
    }
  }
  return placed;
}

/** Addresses lie in their subnets, outside what AWS keeps, and belong to one resource. */
export function* placementProblems(directory: Directory): Generator<Problem> {
  const owners = new Map<string, Path>();
  for (const { path, vpc, subnet, address } of placedAddresses(directory)) {
    const bytes = addressBytes(address);
    const ranges = directory.subnets.get(subnet)?.ranges ?? [];
    if (!ranges.some((range) => contains(range, bytes))) {
      yield { path, message: `"${address}" lies outside the subnet ${subnet}` };
    }
    if (ranges.some((range) => isReserved(range, bytes))) {
      const rest = `is one of the five addresses of ${subnet} that are reserved`;
      yield { path, message: `"${address}" ${rest}` };
    }
    const owner = owners.get(`${vpc} ${bytes}`);
    if (owner) yield { path, message: `"${address}" is also at ${owner.join(".")}` };
    owners.set(`${vpc} ${bytes}`, path);
  }
}

/** Subnets of one resource exist, belong to its VPC, and are one per availability zone. */
export function* subnetProblems(
  { config, subnets }: Directory,
  path: Path,
  vpc: string,
  names: string[],
): Generator<Problem> {
  if (!(vpc in config.vpcs)) {
    yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC");
    return;
  }
  const zones = new Map<string, string>();
  for (const name of names) {
    const at = [...path, "subnets", name];
    const subnet = subnets.get(name);
    if (subnet?.vpc !== vpc) {
      yield { path: at, message: `is not a subnet of ${vpc}` };
      continue;
    }
    const other = zones.get(subnet.zone);
    if (other) yield { path: at, message: `lies in ${subnet.zone}, as ${other} does` };
    zones.set(subnet.zone, name);
  }
}

/** Security groups exist and belong to the VPC of what carries them. */
export function* groupProblems(
  { config }: Directory,
  path: Path,
  vpc: string,
  names: readonly string[] | undefined,
): Generator<Problem> {
  for (const [index, name] of (names ?? []).entries()) {
    if (config.security_groups[name]?.vpc === vpc) continue;
    const at = [...path, "security_groups", index];
    yield wrongValue(config, at, `is not a security group of ${vpc}`);
  }
}
