/** An explanation of one packet for a person: a line for every decision. Pure. */

import type { Endpoint, Flow } from "../engine/api.ts";
import type { Explanation } from "../replay/explain.ts";
import { wrapped } from "./table.ts";
import { count, counted } from "./units.ts";

const WIDTH = 100;
const INDENT = 13;
const PROTOCOLS: Record<number, string> = { 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6" };
const LINKS = { ethernet: "Ethernet", raw: "IP", null: "NULL", sll: "SLL", sll2: "SLL2" };

export function explainReport(explanation: Explanation): string {
  const all: [string, string | undefined][] = [
    ["packet", packetLine(explanation)],
    ["parse", parseLine(explanation)],
    ["key", keyLine(explanation)],
    ["hash", hashLine(explanation)],
    ["lookup", lookupLine(explanation)],
    ["resource", resourceLine(explanation)],
    ["groups", explanation.service?.securityGroups.join("; ") || undefined],
    ["target", targetLine(explanation)],
    ["translation", translationLine(explanation)],
    ["state", stateLine(explanation)],
    ["header", headerLine(explanation)],
    ["counters", countersLine(explanation)],
    ["made", madeLine(explanation)],
    ["control", explanation.events.join("; ") || undefined],
    ["verdict", verdictLine(explanation)],
  ];
  return all.flatMap(([label, text]) => (text === undefined ? [] : entry(label, text))).join("\n");
}

function entry(label: string, text: string): string[] {
  return wrapped(text, WIDTH - INDENT).map(
    (line, index) => (index === 0 ? label : "").padEnd(INDENT) + line,
  );
}

function packetLine({ packet, timeMs, bytes, port, link, vpc }: Explanation): string {
  const which = packet === 0 ? "asked about" : `${count(packet)}`;
  const where = vpc === "" ? "" : `, ${vpc}`;
  const at = `${(timeMs / 1000).toFixed(3)} s after the first`;
  return `${which}, ${at}, ${counted(bytes, "byte")} on port ${port} (${LINKS[link]})${where}`;
}

function parseLine({ frame }: Explanation): string {
  const { kind, key, tcpFlags = [] } = frame;
  if (kind === "decided") return `the parser decides: ${frame.verdict}`;
  if (kind === "later-fragment" || key === undefined) {
    return "a later fragment: its datagram's first one names the flow";
  }
  const protocol = PROTOCOLS[key.protocol] ?? `protocol ${key.protocol}`;
  const flags = tcpFlags.length > 0 ? `, ${tcpFlags.join(" ")}` : "";
  const ends = `${protocol} ${end(key.source)} to ${end(key.destination)}${flags}`;
  return kind === "error" ? `ICMP error about ${ends}` : ends;
}

function keyLine({ frame: { key } }: Explanation): string | undefined {
  if (key === undefined) return undefined;
  const ends = [end(key.source), end(key.destination)];
  const [low, high] = key.isSwapped ? ends.toReversed() : ends;
  return `${low} | ${high} | protocol ${key.protocol} | zone ${key.zone}`;
}

function hashLine({ frame: { place } }: Explanation): string | undefined {
  if (place === undefined) return undefined;
  const tag = place.tag.toString(16).padStart(2, "0");
  return `${place.hash}: home group ${count(place.group)}, tag 0x${tag}`;
}

/** Whether the flow that was found had ended, so that the packet began one anew. */
function beginsAnew({ frame, flow, flowBefore }: Explanation): boolean {
  if (flow === undefined || flowBefore === undefined || frame.kind === "error") return false;
  const packets = (one: Flow) => one.packetsFromClient + one.packetsFromService;
  return packets(flow) <= packets(flowBefore);
}

/** What has become of a flow that was found: nothing, unless it is over. */
function endOfFlow(explanation: Explanation, { state, lastSeenMs }: Flow): string {
  const isAnew = beginsAnew(explanation) && explanation.verdict === "forward";
  const isOver = explanation.verdict === "drop.no-flow" && state !== "terminated";
  if (!isAnew && !isOver) return "";
  const silence = ((explanation.timeMs - lastSeenMs) / 1000).toFixed(3);
  return `; over after ${silence} s of silence${isAnew ? ", the packet begins one anew" : ""}`;
}

function lookupLine(explanation: Explanation): string | undefined {
  const { frame, flowBefore } = explanation;
  if (frame.key === undefined) return undefined;
  if (!frame.found || !flowBefore) return "miss: no flow has this key";
  const { state, packetsFromClient, packetsFromService } = flowBefore;
  const fromClient = `${counted(packetsFromClient, "packet")} from the client`;
  const packets = `${fromClient} and ${count(packetsFromService)} from the service so far`;
  const end = endOfFlow(explanation, flowBefore);
  return `hit on the ${frame.found.side} side: ${state}, ${packets}${end}`;
}

function resourceLine({ service }: Explanation): string | undefined {
  if (service === undefined) return undefined;
  return `${service.resource}: ${service.rule} (${service.id})`;
}

function targetLine(explanation: Explanation): string | undefined {
  const { frame, flow, flowBefore } = explanation;
  const isChosen = flowBefore === undefined || beginsAnew(explanation);
  if (frame.ring === undefined || !isChosen) return undefined;
  const { slot, size, target, targets } = frame.ring;
  const chosen = flow ? `: ${end(flow.translatedService)}` : "";
  const place = `ring slot ${count(slot)} of ${count(size)} names target ${target + 1} of ${count(targets)}`;
  return `${place}${chosen}`;
}

function translationLine({ translation, frame }: Explanation): string | undefined {
  if (translation === undefined) return undefined;
  const { before, after } = translation;
  const text = `${before.map(end).join(" to ")} becomes ${after.map(end).join(" to ")}`;
  return frame.kind === "error" ? `inside the quoted packet: ${text}` : text;
}

function stateLine({ frame, flow, flowBefore }: Explanation): string | undefined {
  const name = (one: Flow | undefined) => one?.state ?? "none";
  if (!flow && !flowBefore) return undefined;
  // A later fragment has no key to find its flow by, and changes no state.
  if (frame.kind === "later-fragment") return name(flow);
  if (!flow) return `${name(flowBefore)}, and the packet is refused`;
  const [from, to] = [name(flowBefore), name(flow)];
  return from === to ? to : `${from} to ${to}`;
}

const HEADERS: Record<NonNullable<Flow["header"]>, string> = {
  due: "not yet caused",
  sent: "sent, not acknowledged",
  acknowledged: "acknowledged: numbers move by its length",
  "in-datagrams": "in every datagram of the client",
};

/** The stage of a PROXY header. */
function headerLine({ flow, flowBefore }: Explanation): string | undefined {
  const [before, after] = [flowBefore?.header, flow?.header];
  if (after === undefined) return undefined;
  const name = HEADERS[after];
  return before === undefined || before === after ? name : `${HEADERS[before]}; then ${name}`;
}

function countersLine({ counters }: Explanation): string {
  if (counters.length === 0) return "none";
  return counters.map(({ name, by }) => `${name} ${by > 0 ? "+" : ""}${by}`).join("; ");
}

function madeLine({ made }: Explanation): string | undefined {
  if (made.length === 0) return undefined;
  return made
    .map(({ kind, isAfter, bytes, port }) => {
      const when = isAfter ? "after" : "before";
      return `${kind} of ${counted(bytes, "byte")} ${when} the packet, on port ${port}`;
    })
    .join("; ");
}

function verdictLine({ verdict, portOut }: Explanation): string {
  const isOut = verdict === "forward" || verdict === "pass.non-ip";
  if (verdict === "absorb.header") return `${verdict}: the header takes its place`;
  return isOut ? `${verdict}: leaves on port ${portOut}` : verdict;
}

function end({ address, port }: Endpoint): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
