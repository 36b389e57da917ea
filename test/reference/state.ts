/**
 * Flow states of the twin, told as sentences rather than as a table.
 */
import type { Direction } from "./engine.ts";
import type { Parsed } from "./parse.ts";

export type State =
  | "half-open"
  | "established"
  | "fin-client"
  | "fin-service"
  | "closing"
  | "udp"
  | "icmp"
  | "other";

/** The documented defaults. */
export const TIMEOUTS_MS: Record<State, number> = {
  "half-open": 30_000,
  established: 350_000,
  "fin-client": 350_000,
  "fin-service": 350_000,
  closing: 60_000,
  udp: 120_000,
  icmp: 60_000,
  other: 350_000,
};

/** State of a flow that begins with this packet. */
export function beginState(parsed: Parsed, direction: Direction): State {
  if (parsed.protocol === 17) return "udp";
  if (parsed.protocol === 1 || parsed.protocol === 58) return "icmp";
  if (parsed.protocol !== 6) return "other";
  if (parsed.rst) return "closing";
  if (parsed.syn && !parsed.ack && direction === "from-client") return "half-open";
  if (parsed.fin) return direction === "from-client" ? "fin-client" : "fin-service";
  return "established";
}

/** State after a packet of a live flow; "reopen": a new connection begins on the same tuple. */
export function nextState(state: State, direction: Direction, parsed: Parsed): State | "reopen" {
  const fromClient = direction === "from-client";
  if (parsed.protocol !== 6) return state;
  if (state === "closing") {
    const fresh = parsed.syn && !parsed.ack && !parsed.rst;
    return fromClient && fresh ? "reopen" : "closing";
  }
  if (parsed.rst) return "closing";
  if (state === "half-open") {
    if (fromClient) return "half-open";
    return parsed.fin ? "fin-service" : "established";
  }
  if (!parsed.fin) return state;
  const own = fromClient ? "fin-client" : "fin-service";
  return state === "established" || state === own ? own : "closing";
}
