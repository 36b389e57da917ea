/**
 * The same work as one would write it first: DataView for the packet, Map with string keys for the
 * flows, objects for what is known about them. IPv4 TCP and UDP, source NAT to one address.
 */

interface Tuple {
  source: number;
  destination: number;
  sourcePort: number;
  destinationPort: number;
  protocol: number;
}

interface Side {
  packets: number;
  bytes: number;
}

interface Flow {
  client: Tuple;
  service: Tuple;
  fromClient: Side;
  fromService: Side;
  state: "half-open" | "established" | "closing" | "udp";
  lastSeenMs: number;
}

const TIMEOUTS_MS = { "half-open": 30_000, established: 350_000, closing: 60_000, udp: 120_000 };
const VERDICT = { forward: 0, pass: 1, truncated: 2, malformed: 3, noFlow: 5 };

function keyOf({ source, destination, sourcePort, destinationPort, protocol }: Tuple): string {
  return `${source}:${sourcePort}-${destination}:${destinationPort}/${protocol}`;
}

function reversed(tuple: Tuple): Tuple {
  return {
    source: tuple.destination,
    destination: tuple.source,
    sourcePort: tuple.destinationPort,
    destinationPort: tuple.sourcePort,
    protocol: tuple.protocol,
  };
}

/** The 16-bit words of the fields that translation changes. */
function addressWords({ source, destination }: Tuple): number[] {
  return [source >>> 16, source & 0xffff, destination >>> 16, destination & 0xffff];
}

/** RFC 1624 equation 3, word by word. */
function updated(checksum: number, before: number[], after: number[]): number {
  let sum = ~checksum & 0xffff;
  for (const word of before) sum += ~word & 0xffff;
  for (const word of after) sum += word;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export class IdiomaticTwin {
  readonly #bytes: Uint8Array;
  readonly #descriptors: Uint32Array;
  readonly #natAddress: number;
  readonly #byClientSide = new Map<string, Flow>();
  readonly #byServiceSide = new Map<string, Flow>();

  /** `natAddress` as a number, network order. */
  constructor(bytes: Uint8Array, descriptors: Uint32Array, natAddress: number) {
    this.#bytes = bytes;
    this.#descriptors = descriptors;
    this.#natAddress = natAddress;
  }

  process(count: number): void {
    for (let index = 0; index < count; index++) {
      const [address = 0, captured = 0, timeMs = 0, port = 0] = this.#descriptors.subarray(
        index * 8,
        index * 8 + 4,
      );
      const { buffer, byteOffset } = this.#bytes;
      const frame = new DataView(buffer, byteOffset + address, captured);
      this.#descriptors[index * 8 + 4] = this.#packet(frame, timeMs, (port & 1) === 1);
    }
  }

  #packet(frame: DataView, nowMs: number, isServiceSide: boolean): number {
    if (frame.byteLength < 34 || frame.getUint16(12) !== 0x0800) return VERDICT.pass;
    if (frame.getUint8(14) !== 0x45) return VERDICT.malformed;
    if (frame.getUint16(16) + 14 > frame.byteLength) return VERDICT.truncated;
    if ((frame.getUint16(20) & 0x3fff) !== 0) return VERDICT.malformed;
    const protocol = frame.getUint8(23);
    if (protocol !== 6 && protocol !== 17) return VERDICT.pass;
    const tuple: Tuple = {
      source: frame.getUint32(26),
      destination: frame.getUint32(30),
      sourcePort: frame.getUint16(34),
      destinationPort: frame.getUint16(36),
      protocol,
    };
    const flow = isServiceSide
      ? this.#byServiceSide.get(keyOf(reversed(tuple)))
      : (this.#byClientSide.get(keyOf(tuple)) ?? this.#begin(tuple, nowMs));
    if (!flow || nowMs - flow.lastSeenMs > TIMEOUTS_MS[flow.state]) return VERDICT.noFlow;
    if (protocol === 6) this.#advance(flow, frame.getUint8(47), isServiceSide);
    const counted = isServiceSide ? flow.fromService : flow.fromClient;
    counted.packets++;
    counted.bytes += frame.byteLength;
    flow.lastSeenMs = nowMs;
    rewrite(frame, tuple, isServiceSide ? reversed(flow.client) : flow.service);
    return VERDICT.forward;
  }

  #begin(client: Tuple, nowMs: number): Flow {
    const service: Tuple = { ...client, source: this.#natAddress };
    while (this.#byServiceSide.has(keyOf(service))) {
      service.sourcePort = service.sourcePort === 65535 ? 1024 : service.sourcePort + 1;
    }
    const flow: Flow = {
      client,
      service,
      fromClient: { packets: 0, bytes: 0 },
      fromService: { packets: 0, bytes: 0 },
      state: client.protocol === 17 ? "udp" : "half-open",
      lastSeenMs: nowMs,
    };
    this.#byClientSide.set(keyOf(client), flow);
    this.#byServiceSide.set(keyOf(service), flow);
    return flow;
  }

  #advance(flow: Flow, flags: number, isFromService: boolean): void {
    if (flags & 5) flow.state = "closing";
    else if (flow.state === "half-open" && isFromService) flow.state = "established";
  }
}

function rewrite(frame: DataView, before: Tuple, after: Tuple): void {
  frame.setUint32(26, after.source);
  frame.setUint32(30, after.destination);
  frame.setUint16(34, after.sourcePort);
  frame.setUint16(36, after.destinationPort);
  const oldWords = addressWords(before);
  const newWords = addressWords(after);
  frame.setUint16(24, updated(frame.getUint16(24), oldWords, newWords));
  oldWords.push(before.sourcePort, before.destinationPort);
  newWords.push(after.sourcePort, after.destinationPort);
  const at = before.protocol === 6 ? 50 : 40;
  const checksum = frame.getUint16(at);
  if (before.protocol === 17 && checksum === 0) return;
  const sum = updated(checksum, oldWords, newWords);
  frame.setUint16(at, before.protocol === 17 && sum === 0 ? 0xffff : sum);
}
