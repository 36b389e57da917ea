/**
 * Which targets get new flows, and which zones stand in the DNS (Elastic Load Balancing: "Target
 * group health"). Two thresholds, each a number of healthy targets, a share of them, or both; one
 * of them missed is enough.
 *
 * - Routing: a node whose targets are too unhealthy sends flows to all of them: it fails open. With
 *   cross-zone off a node counts the targets of its zone, else all of them.
 * - DNS: a zone whose targets are too unhealthy is left out of the answers, unless all are.
 */
import type { TargetGroupSettings, Threshold } from "./settings.ts";
import { isRegistered, isServing, type TargetRecord } from "./targets.ts";

export interface Eligible {
  targets: TargetRecord[];
  /** Too few are healthy: all registered ones are meant. */
  isFailOpen: boolean;
}

/** Whether too few of the registered targets are healthy. */
export function misses({ count, percentage }: Threshold, targets: readonly TargetRecord[]) {
  const registered = targets.filter(isRegistered).length;
  const healthy = targets.filter(isServing).length;
  return healthy < count || healthy * 100 < percentage * registered;
}

/** The targets that a node of a zone chooses from. A target outside the VPC serves every zone. */
export function inScope(
  targets: readonly TargetRecord[],
  zone: string,
  isCrossZone: boolean,
): TargetRecord[] {
  return targets.filter((target) => isCrossZone || target.zone === zone || target.zone === "all");
}

/** The targets of a group that get new flows from the node in a zone. */
export function eligible(
  targets: readonly TargetRecord[],
  zone: string,
  isCrossZone: boolean,
  settings: Pick<TargetGroupSettings, "routingFailover">,
): Eligible {
  const scope = inScope(targets, zone, isCrossZone);
  const isFailOpen = misses(settings.routingFailover, scope);
  const chosen = scope.filter(isFailOpen ? isRegistered : isServing);
  return { targets: chosen, isFailOpen: isFailOpen && chosen.length > 0 };
}

/**
 * The zones of a load balancer whose nodes stand in the DNS. A zone without targets of its own is
 * left out when cross-zone is off; when all zones would be, all are in.
 */
export function zonesInDns(
  zones: readonly string[],
  groups: readonly {
    targets: readonly TargetRecord[];
    isCrossZone: boolean;
    settings: Pick<TargetGroupSettings, "dnsFailover">;
  }[],
): string[] {
  const healthy = zones.filter((zone) =>
    groups.every(({ targets, isCrossZone, settings }) => {
      const scope = inScope(targets, zone, isCrossZone);
      return scope.some(isRegistered) && !misses(settings.dnsFailover, scope);
    }),
  );
  return healthy.length > 0 ? healthy : [...zones];
}
