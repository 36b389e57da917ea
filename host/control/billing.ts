/**
 * Units that are billed: NLCU (Elastic Load Balancing pricing), and hours and gigabytes of
 * endpoints (AWS PrivateLink pricing). Prices are parameters: only what is counted is known here.
 */

const GIGABYTE = 1e9;

export type NlcuProtocol = "TCP" | "UDP" | "TLS";

/** What one NLCU holds: new flows a second, flows at once (sampled each minute), GB an hour. */
export const NLCU: Record<
  NlcuProtocol,
  { newPerSecond: number; active: number; gbPerHour: number }
> = {
  TCP: { newPerSecond: 800, active: 100_000, gbPerHour: 1 },
  UDP: { newPerSecond: 400, active: 50_000, gbPerHour: 1 },
  TLS: { newPerSecond: 50, active: 3_000, gbPerHour: 1 },
};

export interface HourOfUse {
  /** Flows that began in the hour. */
  newFlows: number;
  /** Flows at once, one sample a minute. */
  activeSamples: readonly number[];
  bytes: number;
}

/** NLCU of an hour and a protocol: the highest of the three dimensions counts. */
export function nlcu(
  protocol: NlcuProtocol,
  { newFlows, activeSamples, bytes }: HourOfUse,
): number {
  const { newPerSecond, active, gbPerHour } = NLCU[protocol];
  const samples = Math.max(1, activeSamples.length);
  const mean = activeSamples.reduce((sum, one) => sum + one, 0) / samples;
  return Math.max(newFlows / 3600 / newPerSecond, mean / active, bytes / GIGABYTE / gbPerHour);
}

export interface BillLine {
  endpointId: string;
  serviceId: string;
  owner: string;
  /** Begun hours, each zone counted: an endpoint in two zones has two an hour. */
  zoneHours: number;
  gigabytes: number;
}

/** The bill line of an endpoint that stood from one instant to another, and what it carried. */
export function billLine(
  endpoint: Pick<BillLine, "endpointId" | "serviceId" | "owner">,
  zones: number,
  fromMs: number,
  toMs: number,
  bytes: number,
): BillLine {
  const hours = Math.ceil(Math.max(0, toMs - fromMs) / 3_600_000);
  return { ...endpoint, zoneHours: hours * zones, gigabytes: bytes / GIGABYTE };
}

/** A price that falls with the amount: each tier holds up to so many units. */
export interface Tier {
  upTo: number;
  price: number;
}

/** What an amount costs; the last tier has no end. */
export function tiered(amount: number, tiers: readonly Tier[]): number {
  let cost = 0;
  let from = 0;
  for (const { upTo, price } of tiers) {
    cost += Math.max(0, Math.min(amount, upTo) - from) * price;
    from = upTo;
  }
  return cost;
}
