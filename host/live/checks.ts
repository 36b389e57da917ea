/**
 * Which health checks a network needs, from its state: every registered target of a group that a
 * listener or a mount target uses, checked from one node of the load balancer, that of the target's
 * zone where there is one. (AWS checks from every node; one engine needs only one opinion.) Checks
 * obey what the security groups of the load balancer let out, not what they let in.
 */

import type { NetworkConfig } from "../config/schema.ts";
import { EVERYTHING, outboundRules, permitsTcp } from "../control/rules.ts";
import type { ControlState } from "../control/state.ts";
import type { TargetRecord } from "../control/targets.ts";
import type { NetworkRule } from "../engine/network.ts";
import type { CheckPlan } from "../health/checker.ts";

/** Default time-outs in seconds by protocol. */
const TIMEOUTS = { TCP: 10, HTTPS: 10, HTTP: 6 } as const;
const UNCHECKED = ["draining", "unused", "unavailable"];

/** A node that checks come from. */
interface Node {
  zone: string;
  address: string;
  ipv6Address: string | undefined;
  /** Port of the listener, for the Host header. */
  port: number;
  /** What may leave it. */
  outbound: readonly NetworkRule[];
}

/** Checks of the targets that stand in a VPC; `header` goes first where PROXY protocol is on. */
export function checkPlans(state: ControlState, vpc: string, header: Uint8Array): CheckPlan[] {
  return [...state.groups].flatMap(([name, group]) => {
    const config = state.config.target_groups[name];
    if (config?.vpc !== vpc || !group.settings.checksHealth) return [];
    const nodes = nodesOf(state, name);
    if (nodes.length === 0) return [];
    return group.targets
      .filter((target) => !UNCHECKED.includes(target.state))
      .flatMap((target) => {
        const node = nodes.find(({ zone }) => zone === target.zone) ?? nodes[0];
        const preamble = group.settings.hasProxyHeader ? header : undefined;
        return node ? [planOf(name, config, target, node, preamble)] : [];
      });
  });
}

/** What a plan's key stands for. */
export function checkedTarget(key: string): { group: string; address: string; port: number } {
  const [group = "", address = "", port = ""] = key.split(" ");
  return { group, address, port: Number(port) };
}

function planOf(
  group: string,
  { health_check: check }: NetworkConfig["target_groups"][string],
  { address, port }: TargetRecord,
  node: Node,
  preamble: Uint8Array | undefined,
): CheckPlan {
  const own = address.includes(":") ? node.ipv6Address : node.address;
  const host = own?.includes(":") ? `[${own}]:${node.port}` : `${own}:${node.port}`;
  const checkedPort = check.port === "traffic-port" ? port : check.port;
  return {
    key: `${group} ${address} ${port}`,
    intervalMs: check.interval_seconds * 1000,
    check: {
      protocol: check.protocol,
      address,
      port: checkedPort,
      path: check.path ?? "/",
      matcher: check.matcher ?? "200-399",
      host,
      timeoutMs: (check.timeout_seconds ?? TIMEOUTS[check.protocol]) * 1000,
      preamble,
      // Without an address of the target's family the check leaves from the host's own.
      source: own === undefined ? undefined : { address: own, port: 0 },
      isBlocked: !permitsTcp(node.outbound, address, checkedPort),
    },
  };
}

function nodesOf({ config, directory }: ControlState, group: string): Node[] {
  const nodes = directory.usersOf(group).flatMap(({ loadBalancer, listener }) => {
    const balancer = config.load_balancers[loadBalancer];
    const port = balancer?.listeners[listener]?.port ?? 0;
    return Object.entries(balancer?.subnets ?? {}).map(([subnet, node]) => ({
      zone: directory.subnets.get(subnet)?.zone ?? "",
      address: node.address,
      ipv6Address: node.ipv6_address,
      port,
      outbound: outboundOf(config, balancer?.security_groups),
    }));
  });
  const mounts = Object.values(config.mount_targets).filter(({ forward }) => forward === group);
  const NFS_PORT = 2049;
  return [
    ...nodes,
    ...mounts.map(({ subnet, address, security_groups }) => ({
      zone: directory.subnets.get(subnet)?.zone ?? "",
      address,
      ipv6Address: undefined,
      port: NFS_PORT,
      outbound: outboundOf(config, security_groups),
    })),
  ];
}

/** What security groups let out; everything where there are none. */
function outboundOf(config: NetworkConfig, groups: string[] | undefined): readonly NetworkRule[] {
  return groups === undefined ? EVERYTHING : outboundRules(config, groups);
}
