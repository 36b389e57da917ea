/**
 * The rules for what a service makes of a new flow. The engine chooses by keyed hashes, so the
 * twin cannot say which tuple comes; it says whether the one that came is allowed, and whether a
 * refusal was.
 */

import { addressBytes } from "../../fixtures/bytes.ts";
import type { ServiceOptions, VerdictName } from "../../host/engine/api.ts";
import type { Twin } from "./engine.ts";
import { isIcmp, type Parsed, type Tuple } from "./parse.ts";

/** Tells the tuple that a new flow got on its service side, or why it got none. */
export type Choose = (client: Tuple) => Tuple | VerdictName;

export interface Request {
  client: Tuple;
  parsed: Parsed;
  service: ServiceOptions;
  zoneOut: string;
  timeMs: number;
}

const PORT_MIN = 1024;
/** A port that is not the client's own still has its remainder by this. */
const PORT_LIKES = 64;

function hexAddress(address: string): string {
  return Buffer.from(addressBytes(address)).toString("hex");
}

interface Destination {
  address: string;
  port: number;
}

/** Where the service may send the flow. */
function destinations(twin: Twin, request: Request): Destination[] {
  const { client, parsed, service } = request;
  const { protocol, destination, destinationPort } = client;
  const hasPorts = protocol === 6 || protocol === 17;
  const all = (service.targets ?? []).map((target) => ({
    address: hexAddress(target.address),
    port: hasPorts && target.port ? target.port : destinationPort,
    weight: target.weight ?? 1,
  }));
  const width = parsed.family === 4 ? 8 : 32;
  const ofFamily = all.filter((target) => target.address.length === width && target.weight > 0);
  if (ofFamily.length === 0) return [{ address: destination, port: destinationPort }];
  const low = twin.listeners.get(listenerOf(request)) ?? 0;
  return ofFamily.map((target) => ({ ...target, address: withLow(target.address, low) }));
}

/** Listeners, and so the low bits of their targets, are told apart by address and port. */
function listenerOf({ client, service }: Request): string {
  return `${service.listenerBits} ${client.destination} ${client.destinationPort}`;
}

/** An address with other low bits; those of a target as given are 0. */
function withLow(address: string, low: number): string {
  return (BigInt(`0x${address}`) | BigInt(low)).toString(16).padStart(address.length, "0");
}

/** Learns a listener's low bits from the first flow that meets it; they never change. */
function learnListener(twin: Twin, request: Request, chosen: Tuple): void {
  const bits = request.service.listenerBits ?? 0;
  const listener = listenerOf(request);
  if (bits === 0 || twin.listeners.has(listener)) return;
  const low = BigInt(`0x${chosen.destination}`) & ((1n << BigInt(bits)) - 1n);
  twin.listeners.set(listener, Number(low));
}

/** The addresses that it may leave with; none: its own. */
function pool({ client, service }: Request): string[] {
  const addresses = (service.sourceAddresses ?? []).map(hexAddress);
  return addresses.filter((address) => address.length === client.source.length);
}

/** Does the packet carry something like a source port that may be changed? */
function isPortFree(parsed: Parsed): boolean {
  if (parsed.protocol === 6 || parsed.protocol === 17) return true;
  return isIcmp(parsed) && parsed.requests;
}

function tupleTo(request: Request, to: Destination, source: string, sourcePort: number): Tuple {
  return {
    protocol: request.client.protocol,
    zone: request.zoneOut,
    source,
    sourcePort,
    destination: to.address,
    destinationPort: to.port,
  };
}

/** A complaint about a choice ends the test. */
function complain(request: Request, chosen: unknown, why: string): never {
  const told = JSON.stringify({ client: request.client, chosen, timeMs: request.timeMs });
  throw new Error(`${why}: ${told}`);
}

/**
 * Judges what the engine made of a new flow. Returns the verdict when it refused it rightly,
 * nothing when the chosen tuple is allowed; throws when neither.
 */
export function refuseOrCheck(
  twin: Twin,
  request: Request,
  chosen: Tuple | VerdictName,
): VerdictName | undefined {
  if (typeof chosen === "string") return checkRefusal(twin, request, chosen);
  learnListener(twin, request, chosen);
  const to = destinations(twin, request).find(
    ({ address, port }) => address === chosen.destination && port === chosen.destinationPort,
  );
  if (to === undefined) complain(request, chosen, "a destination that is no target");
  if (twin.isTaken(chosen, request.timeMs)) complain(request, chosen, "a tuple of another flow");
  const addresses = pool(request);
  const { source, sourcePort } = request.client;
  if (addresses.length === 0) {
    const kept = chosen.source === source && chosen.sourcePort === sourcePort;
    if (!kept) complain(request, chosen, "a source that should have stayed");
    return undefined;
  }
  if (!addresses.includes(chosen.source)) complain(request, chosen, "a source outside the pool");
  checkPort(twin, request, chosen, to);
  return undefined;
}

function checkPort(twin: Twin, request: Request, chosen: Tuple, to: Destination): void {
  const own = request.client.sourcePort;
  if (chosen.sourcePort === own) return;
  if (!isPortFree(request.parsed)) complain(request, chosen, "a port where there is none");
  if (chosen.sourcePort < PORT_MIN) complain(request, chosen, "a port below 1024");
  if (chosen.sourcePort % PORT_LIKES !== own % PORT_LIKES) {
    complain(request, chosen, "a port with other low bits");
  }
  const keeps = isIcmp(request.parsed) || own >= PORT_MIN;
  if (keeps && !twin.isTaken(tupleTo(request, to, chosen.source, own), request.timeMs)) {
    complain(request, chosen, "another port although its own was free");
  }
}

function checkRefusal(twin: Twin, request: Request, verdict: VerdictName): VerdictName {
  const addresses = pool(request);
  const sources = addresses.length > 0 ? addresses : [request.client.source];
  const own = request.client.sourcePort;
  const taken = (to: Destination, source: string) =>
    twin.isTaken(tupleTo(request, to, source, own), request.timeMs);
  const allTaken = destinations(twin, request).every((to) =>
    sources.every((source) => taken(to, source)),
  );
  const expected = addresses.length > 0 ? "drop.port-exhausted" : "drop.tuple-taken";
  if (verdict === "drop.same-endpoint") {
    const { source, destination, sourcePort, destinationPort } = request.client;
    if (source === destination && sourcePort === destinationPort) return verdict;
  }
  if (verdict !== expected) complain(request, verdict, "a refusal for another reason");
  if (!allTaken) complain(request, verdict, "a refusal although a tuple was free");
  if (addresses.length > 0 && isPortFree(request.parsed)) {
    complain(request, verdict, "a refusal although there are other ports");
  }
  return verdict;
}
