/**
 * One end of a TCP connection (RFC 9293), small but strict: retransmission by timer and by
 * duplicate acknowledgements, SACK and D-SACK (RFC 2018, 2883, 6675 in short), window scaling and
 * timestamps with PAWS (RFC 7323), challenges (RFC 5961). It sends one stream of bytes, closes its
 * side, and keeps what it receives.
 *
 * Positions count from the initial sequence number and never wrap: 0 is the SYN, 1 the first byte.
 * Whatever no real peer would do (acknowledge what was never sent, a reset) is an exception.
 */
import { ACK, FIN, PSH, RST, type Segment, type SegmentOptions, SYN } from "./tcp-segment.ts";

export interface EndpointOptions {
  isn: number;
  mss: number;
  scale: number;
  hasSack: boolean;
  hasTimestamps: boolean;
  /** Bytes that it takes at once. */
  window: number;
  /** Segments of the size of so many MSS leave as one (segmentation offload). */
  superSegments: number;
  /** Every acknowledgement at once, else every second one or after 40 ms. */
  acksAtOnce: boolean;
  /** NOPs in front of its options. */
  optionShift: number;
  data: Uint8Array;
  /** Bytes that it wants to have received before it sends its own. */
  sendsAfter: number;
}

type Send = (
  segment: Omit<Segment, "source" | "destination" | "sourcePort" | "destinationPort">,
) => void;

const RTO_MS_MIN = 200;
const RTO_MS_MAX = 800;
const DELAYED_ACK_MS = 40;
const CWND_SEGMENTS = 10;

export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #send: Send;
  /** Position after the last: SYN, data, FIN. */
  readonly #end: number;
  #peerIsn: number | undefined;
  #isOpened = false;
  // Sender.
  #una = 0;
  #next = 0;
  #max = 0;
  #window = 0;
  #peerMss = 536;
  #peerScale = 0;
  #hasSack = false;
  #hasTimestamps = false;
  #cwnd = 0;
  #duplicates = 0;
  #recover = 0;
  #rtoMs = RTO_MS_MIN;
  #rtoAtMs = Number.POSITIVE_INFINITY;
  #sacked: [number, number][] = [];
  // Receiver.
  #received = 0;
  #ranges: [number, number][] = [];
  #recentRange: [number, number] | undefined;
  #duplicate: [number, number] | undefined;
  #finAt = Number.POSITIVE_INFINITY;
  #tsRecent = 0;
  #ackAtMs = Number.POSITIVE_INFINITY;
  #unacked = 0;
  readonly #bytes: Uint8Array;
  /** Segments that it did not believe. */
  refused = 0;

  constructor(options: EndpointOptions, send: Send, receiveBytesMax: number) {
    this.#options = options;
    this.#send = send;
    this.#end = 1 + options.data.length + 1;
    this.#bytes = new Uint8Array(receiveBytesMax);
  }

  /** In-order bytes so far. */
  get received(): Uint8Array {
    const end = Math.min(this.#received, this.#finAt);
    return this.#bytes.subarray(0, Math.max(0, end - 1));
  }

  get isDone(): boolean {
    return this.#una === this.#end && this.#received > this.#finAt;
  }

  get hasConnected(): boolean {
    return this.#una > 0 && this.#peerIsn !== undefined;
  }

  connect(nowMs: number): void {
    this.#isOpened = true;
    this.#transmitSyn(nowMs);
  }

  #transmitSyn(nowMs: number): void {
    const { mss, scale, hasSack, hasTimestamps } = this.#options;
    const isAnswer = this.#peerIsn !== undefined;
    const options: SegmentOptions = { mss, scale };
    if (hasSack && (!isAnswer || this.#hasSack)) options.sackPermitted = true;
    if (hasTimestamps && (!isAnswer || this.#hasTimestamps)) {
      options.timestamps = [this.#stamp(nowMs), this.#tsRecent];
    }
    this.#next = Math.max(this.#next, 1);
    this.#max = Math.max(this.#max, 1);
    this.#armTimer(nowMs);
    this.#emit(0, isAnswer ? SYN | ACK : SYN, new Uint8Array(0), options);
  }

  #stamp(nowMs: number): number {
    return (this.#options.isn + nowMs) >>> 0;
  }

  #armTimer(nowMs: number): void {
    this.#rtoAtMs = nowMs + this.#rtoMs;
  }

  #emit(position: number, flags: number, payload: Uint8Array, options: SegmentOptions): void {
    const space = Math.min(this.#options.window, 65_535 << this.#options.scale);
    const isSyn = (flags & SYN) !== 0;
    const window = isSyn ? Math.min(space, 65_535) : space >> this.#options.scale;
    const ack = flags & ACK ? (this.#peerIsn ?? 0) + this.#received : 0;
    const seq = (this.#options.isn + position) >>> 0;
    this.#send({ seq, ack: ack >>> 0, flags, window, urgent: 0, options, payload });
  }

  #ordinary(nowMs: number): SegmentOptions {
    const options: SegmentOptions = { shift: this.#options.optionShift };
    if (this.#hasTimestamps) options.timestamps = [this.#stamp(nowMs), this.#tsRecent];
    if (!this.#hasSack) return options;
    const blocks = [...this.#ranges].reverse();
    if (this.#recentRange) {
      const recent = blocks.findIndex(([left]) => left === this.#recentRange?.[0]);
      if (recent > 0) blocks.unshift(...blocks.splice(recent, 1));
    }
    if (this.#duplicate) blocks.unshift(this.#duplicate);
    this.#duplicate = undefined;
    const room = this.#hasTimestamps ? 3 : 4;
    const count = room - (this.#options.optionShift > 2 ? 1 : 0);
    const wire = (at: number) => ((this.#peerIsn ?? 0) + at) >>> 0;
    options.sack = blocks.slice(0, count).map(([left, right]) => [wire(left), wire(right)]);
    return options;
  }

  #acknowledge(nowMs: number): void {
    this.#unacked = 0;
    this.#ackAtMs = Number.POSITIVE_INFINITY;
    this.#emit(this.#max, ACK, new Uint8Array(0), this.#ordinary(nowMs));
  }

  /** Timers that are due. */
  tick(nowMs: number): void {
    if (nowMs >= this.#ackAtMs) this.#acknowledge(nowMs);
    if (nowMs < this.#rtoAtMs || !this.#isOpened) return;
    if (this.#una === this.#max) {
      this.#rtoAtMs = Number.POSITIVE_INFINITY;
      return;
    }
    this.#rtoMs = Math.min(RTO_MS_MAX, this.#rtoMs * 2);
    if (this.#una === 0) {
      this.#transmitSyn(nowMs);
      return;
    }
    this.#sacked = [];
    this.#duplicates = 0;
    this.#cwnd = this.#peerMss;
    this.#next = this.#una;
    this.#armTimer(nowMs);
    this.transmit(nowMs);
  }

  /** Sends what may be sent. */
  transmit(nowMs: number): void {
    if (!this.hasConnected || this.received.length < this.#options.sendsAfter) return;
    const limit = this.#una + Math.min(this.#cwnd, Math.max(this.#window, 1));
    while (this.#next < this.#end && this.#next < limit) {
      const skip = this.#sacked.find(([left, right]) => left <= this.#next && this.#next < right);
      if (skip) this.#next = skip[1];
      else this.#next = this.#transmitAt(this.#next, limit, nowMs);
    }
  }

  /** One segment from a position; returns where the next one begins. */
  #transmitAt(position: number, limit: number, nowMs: number): number {
    const { data, superSegments } = this.#options;
    const room = this.#peerMss * superSegments - optionBytes(this.#hasTimestamps);
    const dataEnd = 1 + data.length;
    const end = Math.min(position + room, dataEnd, Math.max(limit, position + 1));
    const payload = data.subarray(position - 1, Math.max(position, end) - 1);
    const isLast = position + payload.length === dataEnd && limit > dataEnd;
    const flags = ACK | (isLast ? FIN : 0) | (payload.length > 0 ? PSH : 0);
    const options: SegmentOptions = { shift: this.#options.optionShift };
    if (this.#hasTimestamps) options.timestamps = [this.#stamp(nowMs), this.#tsRecent];
    this.#unacked = 0;
    this.#ackAtMs = Number.POSITIVE_INFINITY;
    if (this.#rtoAtMs === Number.POSITIVE_INFINITY) this.#armTimer(nowMs);
    this.#emit(position, flags, payload, options);
    const next = position + payload.length + (isLast ? 1 : 0);
    this.#max = Math.max(this.#max, next);
    return Math.max(next, position + (payload.length === 0 && !isLast ? 1 : 0));
  }

  receive(segment: Segment, nowMs: number): void {
    const { flags, options } = segment;
    if (flags & RST) throw new Error("a reset arrived");
    if (flags & SYN) {
      this.#receiveSyn(segment, nowMs);
      return;
    }
    if (this.#peerIsn === undefined) throw new Error("a segment came before the SYN");
    if (this.#hasTimestamps) {
      // RFC 7323 section 3.2: to drop what has none is allowed, so this end does.
      if (!options.timestamps) {
        this.refused++;
        return;
      }
      if (((options.timestamps[0] - this.#tsRecent) | 0) < 0) {
        // Answering bare acknowledgements that were overtaken would never end.
        if (segment.payload.length > 0) this.#acknowledge(nowMs);
        return;
      }
    }
    if (!(flags & ACK)) throw new Error("a segment without ACK");
    const ack = this.#una + (((segment.ack - this.#options.isn - this.#una) | 0) as number);
    if (ack > this.#max) throw new Error(`acknowledged to ${ack}, sent to ${this.#max}`);
    this.#checkSacks(options.sack ?? [], ack);
    this.#take(segment, nowMs);
    this.#takeAck(segment, ack, nowMs);
    this.transmit(nowMs);
    this.#maybeAcknowledge(segment, nowMs);
  }

  #receiveSyn({ seq, ack, flags, options, window }: Segment, nowMs: number): void {
    if (this.#peerIsn !== undefined) {
      // Once connected, a SYN is answered by a challenge; before, our own may have been lost.
      if (this.#una > 0) {
        this.#acknowledge(nowMs);
        return;
      }
      this.#transmitSyn(nowMs);
      return;
    }
    if (flags & ACK && ack !== (this.#options.isn + 1) >>> 0) {
      throw new Error("a SYN-ACK acknowledges something else than the SYN");
    }
    this.#peerIsn = seq;
    this.#received = 1;
    this.#peerMss = Math.min(options.mss ?? 536, this.#options.mss);
    this.#peerScale = options.scale ?? 0;
    this.#hasSack = this.#options.hasSack && options.sackPermitted === true;
    this.#hasTimestamps = this.#options.hasTimestamps && options.timestamps !== undefined;
    if (options.timestamps) this.#tsRecent = options.timestamps[0];
    this.#cwnd = CWND_SEGMENTS * this.#peerMss;
    this.#window = window;
    if (!(flags & ACK)) {
      this.#isOpened = true;
      this.#transmitSyn(nowMs);
      return;
    }
    this.#una = 1;
    this.#rtoMs = RTO_MS_MIN;
    this.#rtoAtMs = Number.POSITIVE_INFINITY;
    this.#acknowledge(nowMs);
    this.transmit(nowMs);
  }

  /** Blocks name what was sent and is not acknowledged; the first may name what came twice. */
  #checkSacks(blocks: [number, number][], ack: number): void {
    const at = (wire: number) => this.#una + ((wire - this.#options.isn - this.#una) | 0);
    this.#sacked = this.#sacked.filter(([, right]) => right > ack);
    for (const [index, [left, right]] of blocks.entries()) {
      const [from, to] = [at(left), at(right)];
      if (from >= to || to > this.#max) throw new Error(`SACK of ${from} to ${to} of ${this.#max}`);
      const isDuplicate = index === 0 && (to <= ack || blocks.length > 1);
      if (from <= ack && ack >= this.#una && !isDuplicate) {
        throw new Error(`SACK of ${from} to ${to}, acknowledged to ${ack}`);
      }
      if (from > ack) this.#sacked.push([from, to]);
    }
  }

  #takeAck({ window, payload }: Segment, ack: number, nowMs: number): void {
    if (ack < this.#una) return;
    this.#window = window << this.#peerScale;
    if (ack > this.#una) {
      this.#cwnd += Math.min(ack - this.#una, this.#peerMss);
      this.#una = ack;
      this.#next = Math.max(this.#next, ack);
      this.#rtoMs = RTO_MS_MIN;
      this.#duplicates = 0;
      this.#rtoAtMs = this.#una === this.#max ? Number.POSITIVE_INFINITY : nowMs + this.#rtoMs;
      if (ack < this.#recover) this.#repair(nowMs);
      return;
    }
    if (payload.length > 0 || this.#una === this.#max || this.#una === 0) return;
    this.#duplicates++;
    if (this.#duplicates !== 3) return;
    this.#recover = this.#max;
    this.#cwnd = Math.max(2 * this.#peerMss, this.#cwnd >> 1);
    this.#repair(nowMs);
  }

  /** Sends the first hole again. */
  #repair(nowMs: number): void {
    const next = this.#sacked.map(([left]) => left).sort((a, b) => a - b)[0] ?? this.#recover;
    this.#transmitAt(this.#una, Math.max(next, this.#una + 1), nowMs);
  }

  #take({ seq, flags, payload, options }: Segment, nowMs: number): void {
    const isn = this.#peerIsn ?? 0;
    const start = this.#received + ((seq - isn - this.#received) | 0);
    const hasFin = (flags & FIN) !== 0;
    const end = start + payload.length + (hasFin ? 1 : 0);
    const isIn = start <= this.#received + this.#options.window && end >= this.#received;
    if (options.timestamps && start <= this.#received) this.#tsRecent = options.timestamps[0];
    if (end === start) {
      // A probe of a connection that is alive wants an answer.
      if (start < this.#received) this.#ackAtMs = nowMs;
      return;
    }
    if (!isIn || end <= this.#received) {
      if (end <= this.#received) this.#duplicate = [start, end];
      return;
    }
    const kept = Math.min(payload.length, this.#received + this.#options.window - start);
    // It begins where the window ends.
    if (kept === 0 && payload.length > 0) return;
    if (start - 1 + kept > this.#bytes.length) throw new Error("more bytes than were sent");
    if (start > 0) this.#bytes.set(payload.subarray(0, kept), start - 1);
    else throw new Error(`data at position ${start}`);
    if (hasFin && kept === payload.length) this.#finAt = end - 1;
    this.#addRange(start, kept === payload.length ? end : start + kept);
  }

  #addRange(start: number, end: number): void {
    const isKnown = this.#ranges.some(([left, right]) => left <= start && end <= right);
    if (isKnown) this.#duplicate = [start, end];
    const merged: [number, number][] = [];
    let [left, right] = [start, end];
    for (const range of this.#ranges) {
      if (range[1] < left || range[0] > right) merged.push(range);
      else [left, right] = [Math.min(left, range[0]), Math.max(right, range[1])];
    }
    merged.push([left, right]);
    merged.sort((a, b) => a[0] - b[0]);
    const first = merged[0];
    if (first && first[0] <= this.#received) {
      this.#received = Math.max(this.#received, first[1]);
      merged.shift();
    }
    this.#ranges = merged;
    this.#recentRange = left > this.#received ? [left, right] : undefined;
  }

  #maybeAcknowledge({ payload, flags }: Segment, nowMs: number): void {
    const isOrdinary = payload.length > 0 || (flags & FIN) !== 0;
    if (isOrdinary) {
      this.#unacked++;
      const isUrgent = this.#ranges.length > 0 || this.#duplicate !== undefined;
      if (this.#options.acksAtOnce || this.#unacked > 1 || isUrgent || (flags & FIN) !== 0) {
        this.#acknowledge(nowMs);
        return;
      }
      this.#ackAtMs = Math.min(this.#ackAtMs, nowMs + DELAYED_ACK_MS);
    }
    if (nowMs >= this.#ackAtMs) this.#acknowledge(nowMs);
  }
}

function optionBytes(hasTimestamps: boolean): number {
  return hasTimestamps ? 12 : 0;
}
