/** Names that reports and programs know, by the numbers of abi.ts. */
import type { EmitName, LinkKind, VerdictName } from "./api.ts";

/** Verdict names by VERDICT_* value. */
export const VERDICT_NAMES: readonly VerdictName[] = [
  "forward",
  "pass.non-ip",
  "drop.truncated",
  "drop.malformed",
  "drop.no-service",
  "drop.no-flow",
  "drop.fragment",
  "drop.port-exhausted",
  "drop.tuple-taken",
  "drop.table-full",
  "drop.zone-full",
  "drop.same-endpoint",
  "drop.no-route",
  "drop.blackhole",
  "drop.unintended",
  "drop.security-group",
  "drop.no-target",
  "drop.too-large",
  "drop.capacity",
  "hold.undecided",
  "absorb.header",
];

/** Names of frames that the engine makes, by EMIT_* value. */
export const EMIT_NAMES: readonly EmitName[] = ["pp2", "rst", "icmp"];

/** LINK_* by name. */
export const LINKS: Readonly<Record<LinkKind, number>> = {
  ethernet: 0,
  raw: 1,
  null: 2,
  sll: 3,
  sll2: 4,
};
