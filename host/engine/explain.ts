/** Reads the engine's explanation of a frame (EXPLAIN_* of abi.ts) into a plain object. */
import * as abi from "../../assembly/abi.ts";
import { addressText } from "../address.ts";
import type { Endpoint, VerdictName } from "./api.ts";

/** What the engine knows about a frame before it is processed. */
export interface FrameExplanation {
  /** `decided`: the parser gives the verdict; `error`: an ICMP error, named by what it quotes. */
  kind: "decided" | "plain" | "other" | "error" | "later-fragment";
  /** Verdict of a frame that the parser decides. */
  verdict?: VerdictName;
  /** Everything below is absent when the parser decides, and of later fragments. */
  key?: {
    protocol: number;
    source: Endpoint;
    destination: Endpoint;
    zone: number;
    /** The source is the larger of the two, so the key begins with the destination. */
    isSwapped: boolean;
  };
  tcpFlags?: ("FIN" | "SYN" | "RST" | "ACK")[];
  /** 64 bits; in which group of 16 slots a flow is at home, and the tag that it has there. */
  place?: { hash: bigint; group: number; tag: number };
  /** Handle of the flow that the key finds, and on which side. */
  found?: { handle: number; side: "client" | "service" };
  /** What a new flow would belong to: a service's number, or why none. */
  service?: number | "no-service" | "blackhole" | "no-route" | "unintended";
  /** Number of the service whose address is asked for something that it does not listen to. */
  owner?: number;
  ring?: { size: number; slot: number; target: number; targets: number };
}

const KINDS = ["decided", "plain", "other", "error", "later-fragment"] as const;
const FLAGS = ["FIN", "SYN", "RST", "ACK"] as const;
const NO_SERVICE: Record<number, FrameExplanation["service"]> = {
  [abi.EXPLAIN_SERVICE_UNOWNED]: "no-service",
  [abi.EXPLAIN_SERVICE_BLACKHOLE]: "blackhole",
  [abi.EXPLAIN_SERVICE_NO_ROUTE]: "no-route",
  [abi.EXPLAIN_SERVICE_UNINTENDED]: "unintended",
};

export function readExplanation(
  view: DataView,
  block: number,
  verdicts: readonly VerdictName[],
): FrameExplanation {
  const u8 = (field: number) => view.getUint8(block + field);
  const u32 = (field: number) => view.getUint32(block + field, true);
  const kind = KINDS[u8(abi.EXPLAIN_KIND)] as FrameExplanation["kind"];
  if (kind === "decided") {
    return { kind, verdict: verdicts[u8(abi.EXPLAIN_VERDICT)] as VerdictName };
  }
  if (kind === "later-fragment") return { kind };
  const bytes = u8(abi.EXPLAIN_IPV6) === 1 ? 16 : 4;
  const endpoint = (address: number, port: number): Endpoint => ({
    address: addressText(new Uint8Array(view.buffer, block + address, bytes)),
    port: view.getUint16(block + port),
  });
  const explained: FrameExplanation = {
    kind,
    key: {
      protocol: u8(abi.EXPLAIN_PROTOCOL),
      source: endpoint(abi.EXPLAIN_SOURCE, abi.EXPLAIN_SOURCE_PORT_BE),
      destination: endpoint(abi.EXPLAIN_DESTINATION, abi.EXPLAIN_DESTINATION_PORT_BE),
      zone: u32(abi.EXPLAIN_ZONE),
      isSwapped: u8(abi.EXPLAIN_SWAPPED) === 1,
    },
    tcpFlags: FLAGS.filter((_, bit) => u8(abi.EXPLAIN_TCP_FLAGS) & (1 << bit)),
    place: {
      hash: view.getBigUint64(block + abi.EXPLAIN_HASH, true),
      group: u32(abi.EXPLAIN_GROUP),
      tag: u8(abi.EXPLAIN_TAG),
    },
  };
  if (u32(abi.EXPLAIN_FOUND) !== 0) {
    const side = u8(abi.EXPLAIN_FOUND_SIDE) === abi.SIDE_CLIENT ? "client" : "service";
    explained.found = { handle: u32(abi.EXPLAIN_FOUND), side };
  }
  if (kind === "error") return explained;
  const service = u32(abi.EXPLAIN_SERVICE);
  explained.service = NO_SERVICE[service] ?? service;
  if (explained.service === "unintended") explained.owner = u32(abi.EXPLAIN_OWNER);
  if (u32(abi.EXPLAIN_RING_SIZE) !== 0) {
    explained.ring = {
      size: u32(abi.EXPLAIN_RING_SIZE),
      slot: u32(abi.EXPLAIN_RING_SLOT),
      target: u32(abi.EXPLAIN_TARGET),
      targets: u32(abi.EXPLAIN_TARGET_COUNT),
    };
  }
  return explained;
}
