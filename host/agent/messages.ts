/** What the main thread and a VPC's agent say to each other. */

import type { DnsCounters } from "../dns/server.ts";
import type { DnsZone } from "../dns/view.ts";
import type { CheckPlan } from "../health/checker.ts";
import type { CheckResult } from "../health/probe.ts";

/** What an agent begins with. */
export interface AgentStart {
  /** File of the network namespace that it lives in, such as /run/netns/NAME. */
  namespace: string;
  /** Addresses and port of the DNS server; no address, no server. */
  dnsAddresses: string[];
  dnsPort: number;
  zones: DnsZone[];
  /** Whether names outside the zones are asked for by the main thread. */
  isForwarding: boolean;
  /** Which availability zone a client's address is in: the first range that holds it. */
  places: { cidr: string; zone: string }[];
  plans: CheckPlan[];
}

export type ToAgent =
  | { kind: "zones"; zones: DnsZone[] }
  | { kind: "plans"; plans: CheckPlan[] }
  | { kind: "forwarded"; id: number; response: Uint8Array | undefined }
  | { kind: "counters"; id: number }
  | { kind: "stop" };

export type FromAgent =
  | { kind: "ready" }
  | { kind: "result"; key: string; result: CheckResult }
  | { kind: "forward"; id: number; message: Uint8Array }
  | { kind: "counters"; id: number; counters: DnsCounters };
