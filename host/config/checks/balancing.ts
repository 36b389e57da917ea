/** Checks of target groups, load balancers and mount targets against each other. */

import { type Directory, forwardsOf } from "../../control/directory.ts";
import { settingsOf } from "../../control/settings.ts";
import { type Path, type Problem, wrongValue } from "../path.ts";
import type { ListenerConfig, TargetGroupConfig } from "../resources.ts";
import { groupProblems, subnetProblems } from "./placement.ts";

export function* balancingProblems(directory: Directory): Generator<Problem> {
  const { config } = directory;
  for (const [name, group] of Object.entries(config.target_groups)) {
    const path = ["target_groups", name];
    if (!(group.vpc in config.vpcs)) {
      yield wrongValue(config, [...path, "vpc"], "is not the name of a VPC");
      continue;
    }
    yield* targetProblems(directory, name, group);
    yield* attributeProblems(path, group);
    yield* healthCheckProblems(path, group);
    yield* userProblems(directory, name);
  }
  for (const [name, { vpc, subnets, security_groups, listeners }] of Object.entries(
    config.load_balancers,
  )) {
    const path = ["load_balancers", name];
    yield* subnetProblems(directory, path, vpc, Object.keys(subnets));
    yield* groupProblems(directory, path, vpc, security_groups);
    yield* listenerProblems(directory, path, listeners);
  }
  yield* mountTargetProblems(directory);
}

function* targetProblems(
  directory: Directory,
  name: string,
  { targets, port, target_type, ip_address_type }: TargetGroupConfig,
): Generator<Problem> {
  const path = ["target_groups", name];
  const taken = new Map<string, number>();
  for (const [index, { address, port: own = port }] of targets.entries()) {
    const other = taken.get(`${address} ${own}`);
    taken.set(`${address} ${own}`, index);
    if (other === undefined) continue;
    const message = `"${address}" with port ${own} is targets[${other}] as well`;
    yield { path: [...path, "targets", index], message };
  }
  if (target_type === "instance" && ip_address_type === "ipv6") {
    yield { path: [...path, "ip_address_type"], message: '"ipv6" needs the target_type ip' };
  }
  for (const [index, { address }] of targets.entries()) {
    const why = directory.whyNoTarget(name, address);
    if (why === undefined) continue;
    yield { path: [...path, "targets", index, "address"], message: `"${address}" ${why}` };
  }
}

function* attributeProblems(
  path: Path,
  { protocol, attributes }: TargetGroupConfig,
): Generator<Problem> {
  const at = (key: string) => [...path, "attributes", key];
  const isUdp = protocol !== "TCP";
  const preserve = "preserve_client_ip.enabled";
  if (isUdp && attributes[preserve] === false) {
    const message = `false is not possible for ${protocol}: the client's address always stays`;
    yield { path: at(preserve), message };
  }
  const termination = "target_health_state.unhealthy.connection_termination.enabled";
  if (isUdp && attributes[termination] === true) {
    yield { path: at(termination), message: `true is not possible for ${protocol}` };
  }
  const draining = "target_health_state.unhealthy.draining_interval_seconds";
  if (attributes[draining] > 0 && attributes[termination] !== false) {
    yield { path: at(draining), message: `${attributes[draining]} needs ${termination} false` };
  }
  const kinds = ["count", "percentage"] as const;
  for (const kind of kinds) {
    const dns = `target_group_health.dns_failover.minimum_healthy_targets.${kind}` as const;
    const routing =
      `target_group_health.unhealthy_state_routing.minimum_healthy_targets.${kind}` as const;
    const [least, most] = [attributes[routing], attributes[dns]];
    if (least === "off" || most === "off" || most >= least) continue;
    yield { path: at(dns), message: `${most} is below ${routing}, ${least}` };
  }
}

function* healthCheckProblems(
  path: Path,
  { health_check: check }: TargetGroupConfig,
): Generator<Problem> {
  const isHttp = check.protocol !== "TCP";
  for (const key of ["path", "matcher"] as const) {
    if (isHttp || check[key] === undefined) continue;
    yield { path: [...path, "health_check", key], message: "has no meaning for TCP" };
  }
  for (const range of check.matcher?.split(",") ?? []) {
    const [first = "", last = first] = range.split("-");
    if (last >= first) continue;
    const message = `"${range}" ends before it begins`;
    yield { path: [...path, "health_check", "matcher"], message };
  }
}

/** A target group serves one load balancer, or mount targets. */
function* userProblems(directory: Directory, name: string): Generator<Problem> {
  const users = [...new Set(directory.usersOf(name).map(({ loadBalancer }) => loadBalancer))];
  if (users.length < 2) return;
  const message = `is used by ${users.join(" and ")}; a target group serves one load balancer`;
  yield { path: ["target_groups", name], message };
}

const FORWARDS: Record<ListenerConfig["protocol"], string[]> = {
  TCP: ["TCP", "TCP_UDP"],
  UDP: ["UDP", "TCP_UDP"],
  TCP_UDP: ["TCP_UDP"],
};

function* listenerProblems(
  { config }: Directory,
  path: Path,
  listeners: ListenerConfig[],
): Generator<Problem> {
  const taken = new Map<string, number>();
  const dualstack = (config.load_balancers[String(path[1])]?.ip_address_type ?? "") === "dualstack";
  for (const [index, { protocol, port, forward, attributes }] of listeners.entries()) {
    const at = [...path, "listeners", index];
    for (const one of protocol.split("_")) {
      const other = taken.get(`${one} ${port}`);
      taken.set(`${one} ${port}`, index);
      if (other === undefined) continue;
      yield { path: at, message: `${protocol} ${port} is taken by listeners[${other}]` };
    }
    for (const [item, { target_group: name }] of forwardsOf(forward).entries()) {
      const place =
        typeof forward === "string" ? [...at, "forward"] : [...at, "forward", item, "target_group"];
      const group = config.target_groups[name];
      if (group === undefined) {
        yield { path: place, message: `"${name}" is not the name of a target group` };
      } else if (!FORWARDS[protocol].includes(group.protocol)) {
        const possible = FORWARDS[protocol].join(" or ");
        const message = `"${name}" has the protocol ${group.protocol}, not ${possible}`;
        yield { path: place, message };
      } else if (group.ip_address_type === "ipv6" && !dualstack) {
        const message = `"${name}" has IPv6 targets, which need a dualstack load balancer`;
        yield { path: place, message };
      }
    }
    yield* agreementProblems(config, at, forwardsOf(forward));
    const timeout = "tcp.idle_timeout.seconds";
    if (protocol === "UDP" && attributes[timeout] !== undefined) {
      yield { path: [...at, "attributes", timeout], message: "has no meaning for UDP" };
    }
  }
}

/** What a flow begins with is decided before its target: groups of one listener agree on it. */
function* agreementProblems(
  config: Directory["config"],
  path: Path,
  forwards: { target_group: string }[],
): Generator<Problem> {
  const groups = forwards.flatMap(({ target_group }) => config.target_groups[target_group] ?? []);
  const [first, ...others] = groups.map(settingsOf);
  const shared = {
    preservesClient: "preserve_client_ip.enabled",
    isSticky: "stickiness.enabled",
    hasProxyHeader: "proxy_protocol_v2.enabled",
    headerPlacement: "proxy_protocol_v2.client_to_server.header_placement",
  } as const;
  for (const [key, name] of Object.entries(shared) as [keyof typeof shared, string][]) {
    if (others.every((one) => one[key] === first?.[key])) continue;
    yield { path: [...path, "forward"], message: `has target groups that differ in ${name}` };
  }
}

function* mountTargetProblems(directory: Directory): Generator<Problem> {
  const { config, subnets } = directory;
  const zones = new Set<string>();
  for (const [name, mount] of Object.entries(config.mount_targets)) {
    const path = ["mount_targets", name];
    const subnet = subnets.get(mount.subnet);
    if (!subnet) {
      yield wrongValue(config, [...path, "subnet"], "is not the name of a subnet");
      continue;
    }
    yield* groupProblems(directory, path, subnet.vpc, mount.security_groups);
    const group = config.target_groups[mount.forward];
    if (group?.protocol !== "TCP") {
      const rest = "is not the name of a target group of TCP";
      yield wrongValue(config, [...path, "forward"], rest);
    }
    const place = `${mount.file_system} ${subnet.zone}`;
    if (zones.has(place)) {
      const message = `${mount.file_system} has a mount target in ${subnet.zone} already`;
      yield { path, message };
    }
    zones.add(place);
  }
}
