/**
 * Headers that differ in their ends alone, as those of one listener do: everything else is checked,
 * laid out and kept once.
 */
import { addressBytes, plainIpv4 } from "../address.ts";
import type { Endpoint } from "../engine/api.ts";
import { shown, wholeNumber } from "../engine/check.ts";
import type { EngineExports } from "../engine/module.ts";

const ADDRESSES_AT = 16;
const TLV_HEAD_BYTES = 3;

/** What an encoder takes of its codec. */
interface Parts {
  exports: EngineExports;
  /** The codec's buffer. */
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView<ArrayBuffer>;
  start: number;
}

/** Writes headers for one configuration. Made by `HeaderCodec.encoder`. */
export class HeaderEncoder {
  readonly #parts: Parts;
  /** Headers with all ends zero, IPv4 and IPv6, and where in the buffer one of them stands. */
  readonly #templates: readonly Uint8Array[];
  readonly #written: readonly Uint8Array[];
  readonly #hasCrc: boolean;

  /** @internal */
  constructor(parts: Parts, templates: readonly Uint8Array[], hasCrc: boolean) {
    this.#parts = parts;
    this.#templates = templates;
    this.#written = templates.map(({ length }) => parts.bytes.subarray(0, length));
    this.#hasCrc = hasCrc;
  }

  /**
   * The header for a connection from `source` to `destination`.
   * @throws TypeError or RangeError naming the end, its value and its range
   */
  encode(source: Endpoint, destination: Endpoint): Uint8Array {
    return this.#put(source, destination).slice();
  }

  /**
   * Writes it to `into` from byte `at` on instead; returns its length.
   * @throws TypeError or RangeError as `encode`, and RangeError when it does not fit
   */
  encodeInto(into: Uint8Array, at: number, source: Endpoint, destination: Endpoint): number {
    const header = this.#put(source, destination);
    if (!(at >= 0 && at + header.length <= into.length)) {
      throw new RangeError(`at: ${at}, the header of ${header.length} bytes does not fit`);
    }
    into.set(header, at);
    return header.length;
  }

  /** Completes a header in the codec's buffer. */
  #put(source: Endpoint, destination: Endpoint): Uint8Array {
    wholeNumber("source.port", source.port, 0, 0xffff);
    wholeNumber("destination.port", destination.port, 0, 0xffff);
    const { view, start, exports } = this.#parts;
    const from = numberOf("source", source.address);
    const to = numberOf("destination", destination.address);
    const family = from < 0 || to < 0 ? 1 : 0;
    const template = this.#templates[family] as Uint8Array;
    const header = this.#written[family] as Uint8Array;
    let at = ADDRESSES_AT + (family === 0 ? 8 : 32);
    if (family === 0) {
      header.set(template);
      view.setUint32(start + ADDRESSES_AT, from);
      view.setUint32(start + ADDRESSES_AT + 4, to);
    } else {
      const [low, high] = [bytesOf("source", source), bytesOf("destination", destination)];
      if (low.length !== high.length) {
        throw new RangeError(
          `destination.address: ${destination.address} is not of the IP version of ${source.address}`,
        );
      }
      header.set(template);
      header.set(low, ADDRESSES_AT);
      header.set(high, ADDRESSES_AT + 16);
    }
    view.setUint32(start + at, source.port * 0x10000 + destination.port);
    at += 4;
    if (this.#hasCrc) exports.pp2Seal(template.length, at + TLV_HEAD_BYTES);
    return header;
  }
}

function numberOf(name: string, address: unknown): number {
  if (typeof address === "string") return plainIpv4(address);
  throw new TypeError(`${name}.address: ${shown(address)} is not text`);
}

function bytesOf(name: string, { address }: Endpoint): Uint8Array {
  try {
    return addressBytes(address);
  } catch (error) {
    throw new TypeError(`${name}.address: ${(error as Error).message}`);
  }
}
