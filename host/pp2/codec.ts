/**
 * PROXY protocol v2 headers for programs: the engine's encoder and decoder behind two methods.
 *
 * What is written is laid out as AWS does it: CRC32C first, then the endpoint id, then whatever
 * else is asked for, padded with a NOOP to 100 bytes. What is read is checked as the specification
 * tells receivers to, CRC32C included.
 */
import * as abi from "../../assembly/abi.ts";
import { addressBytes, addressText, ipv4Text } from "../address.ts";
import type { Endpoint } from "../engine/api.ts";
import {
  listOf,
  type OptionNames,
  oneOf,
  options,
  shown,
  truth,
  wholeNumber,
} from "../engine/check.ts";
import { type EngineExports, loadEngine } from "../engine/module.ts";
import { HeaderError } from "../errors.ts";
import { HeaderEncoder } from "./encoder.ts";
import { awsEndpoint, hexOf, readTlvs, TLV_TYPES, type Tlv } from "./tlv.ts";

/** What a header is to say. */
export interface HeaderOptions {
  /** The client. Both ends are needed, of one IP version, unless `local`. */
  source?: Endpoint;
  /** The address and port that the client spoke to: the load balancer's, or the endpoint's. */
  destination?: Endpoint;
  /** Default "tcp". With `local`, "unspecified" writes the family byte 0. */
  transport?: "tcp" | "udp" | "unspecified";
  /** The sender speaks for itself (health checks): no addresses. Default false. */
  local?: boolean;
  /** Endpoint id of AWS PrivateLink, `vpce-…`. */
  vpce?: string;
  /** Further TLVs, in this order. CRC32C and NOOP are the codec's own. */
  tlvs?: readonly Tlv[];
  /**
   * Length to pad to with a NOOP; 0 does not pad. Default 100. Longer headers stay as they are, as
   * do those that lack only one or two bytes, because the smallest TLV takes three.
   */
  padTo?: number;
  /** Whether there is a CRC32C. Default true. */
  crc32c?: boolean;
}

/** A header that was read. */
export interface ProxyHeader {
  /** "local": the connection is the sender's own, the addresses are to be ignored. */
  command: "proxy" | "local";
  transport: "tcp" | "udp" | "unix-stream" | "unix-datagram" | "unspecified";
  /** Absent when "local" or "unspecified". Of a UNIX socket: its path and port 0. */
  source?: Endpoint;
  destination?: Endpoint;
  /** All of them, in their order; values are views of the bytes that were read. */
  tlvs: Tlv[];
  /** The CRC32C, which was found right; absent when the header has none. */
  crc32c?: number;
  /** Length of the header: what follows is payload. */
  bytes: number;
}

const OPTIONS: OptionNames<HeaderOptions> = {
  source: true,
  destination: true,
  transport: true,
  local: true,
  vpce: true,
  tlvs: true,
  padTo: true,
  crc32c: true,
};
const ENDPOINT: OptionNames<Endpoint> = { address: true, port: true };
const TLV: OptionNames<Tlv> = { type: true, value: true };
const TRANSPORTS = { unspecified: 0, tcp: 1, udp: 2 } as const;
const AWS_BYTES = 100;
const ADDRESSES_AT = 16;
const TRANSPORT_NAMES: Readonly<Record<number, ProxyHeader["transport"]>> = {
  17: "tcp",
  33: "tcp",
  18: "udp",
  34: "udp",
  49: "unix-stream",
  50: "unix-datagram",
};

/** Encoder and decoder. Made by `createHeaderCodec`. */
export class HeaderCodec {
  readonly #exports: EngineExports;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #start: number;
  readonly #result: number;

  /** @internal */
  constructor(exports: EngineExports) {
    this.#exports = exports;
    const buffer = exports.memory.buffer as ArrayBuffer;
    this.#start = exports.pp2Buffer() >>> 0;
    this.#bytes = new Uint8Array(buffer, this.#start, abi.PP2_BUFFER_BYTES);
    this.#view = new DataView(buffer);
    this.#result = exports.pp2Result() >>> 0;
  }

  /**
   * Writes a header.
   * @throws TypeError or RangeError naming the option, its value and its range; among them that a
   * header is at most 1023 bytes long.
   */
  encode(header: HeaderOptions): Uint8Array {
    options("", header, OPTIONS);
    const local = truth("local", header.local ?? false);
    const transport = oneOf("transport", header.transport ?? "tcp", TRANSPORTS);
    const ends = endsOf(header, local, transport);
    const tlvs = tlvsOf(header);
    const padTo = wholeNumber("padTo", header.padTo ?? AWS_BYTES, 0, abi.PP2_HEADER_BYTES_MAX);
    const crc32c = truth("crc32c", header.crc32c ?? true);
    const network = ends.length === 36 ? 2 : 1;
    const family = transport === TRANSPORTS.unspecified ? 0 : (network << 4) | transport;
    this.#exports.pp2Begin(local ? 0 : 1, family, ends.length, crc32c ? 1 : 0);
    this.#bytes.set(ends, ADDRESSES_AT);
    for (const { type, value } of tlvs) {
      const at = this.#exports.pp2Append(type, value.length) >>> 0;
      if (at === 0) {
        const max = abi.PP2_HEADER_BYTES_MAX;
        throw new RangeError(`tlvs: the header would be longer than ${max} bytes`);
      }
      this.#bytes.set(value, at - this.#start);
    }
    return this.#bytes.slice(0, this.#exports.pp2Finish(padTo) >>> 0);
  }

  /**
   * An encoder for headers that differ in their ends alone; several times as fast as `encode`.
   * @throws TypeError or RangeError as `encode` does; a local header has no ends.
   */
  encoder(header: Omit<HeaderOptions, "source" | "destination" | "local"> = {}): HeaderEncoder {
    const templates = ["0.0.0.0", "::"].map((address) => {
      const end = { address, port: 0 };
      return this.encode({ ...header, source: end, destination: end });
    });
    const parts = {
      exports: this.#exports,
      bytes: this.#bytes,
      view: this.#view,
      start: this.#start,
    };
    return new HeaderEncoder(parts, templates, header.crc32c ?? true);
  }

  /**
   * Reads the header that `bytes` begin with; whatever follows it is payload.
   * @throws {@link HeaderError} when a receiver must refuse it, or not all of it is there yet.
   */
  decode(bytes: Uint8Array): ProxyHeader {
    if (!(bytes instanceof Uint8Array))
      throw new TypeError(`bytes: ${shown(bytes)} is not a Uint8Array`);
    // No more than the header is copied, whatever payload follows it.
    const claimed = bytes.length < ADDRESSES_AT ? bytes.length : lengthOf(bytes);
    const given = claimed < bytes.length ? bytes.subarray(0, claimed) : bytes;
    this.#bytes.set(given);
    const status = this.#exports.pp2Decode(given.length);
    if (status !== abi.PP2_STATUS_OK) throw this.#refusal(status, given.length);
    return this.#header(bytes);
  }

  #word(field: number): number {
    return this.#view.getUint32(this.#result + field, true);
  }

  #header(given: Uint8Array): ProxyHeader {
    const bytes = this.#word(abi.PP2_HEADER_BYTES);
    const isLocal = ((this.#bytes[12] ?? 0) & 15) === 0;
    const family = this.#bytes[13] ?? 0;
    const tlvs = readTlvs(given, this.#word(abi.PP2_TLVS), bytes);
    const transport = TRANSPORT_NAMES[family] ?? "unspecified";
    const header: ProxyHeader = { command: isLocal ? "local" : "proxy", transport, tlvs, bytes };
    if (!isLocal && family !== 0) {
      header.source = this.#endpoint(family, 0);
      header.destination = this.#endpoint(family, 1);
    }
    const crc = this.#word(abi.PP2_CRC);
    if (crc !== 0) header.crc32c = this.#view.getUint32(this.#start + crc);
    return header;
  }

  /** The source (`index` 0) or the destination. */
  #endpoint(family: number, index: number): Endpoint {
    const network = family >> 4;
    if (network === 3) {
      const at = ADDRESSES_AT + index * 108;
      const path = this.#bytes.subarray(at, at + 108);
      const end = path.indexOf(0);
      return { address: new TextDecoder().decode(path.subarray(0, end < 0 ? 108 : end)), port: 0 };
    }
    const size = network === 1 ? 4 : 16;
    const at = ADDRESSES_AT + index * size;
    const port = this.#view.getUint16(this.#start + ADDRESSES_AT + 2 * size + index * 2);
    if (network === 2) return { address: addressText(this.#bytes.subarray(at, at + 16)), port };
    return { address: ipv4Text(this.#bytes, at), port };
  }

  #refusal(status: number, given: number): HeaderError {
    const at = this.#word(abi.PP2_BYTE);
    const detail = this.#word(abi.PP2_DETAIL);
    const reason = REASONS[status]?.(detail, this.#bytes.subarray(at, Math.min(at + 4, given)));
    return new HeaderError(at, reason ?? `status ${status}`, {
      needed: status === abi.PP2_STATUS_INCOMPLETE ? detail : undefined,
    });
  }
}

/** What is wrong, by PP2_STATUS_*. */
const REASONS: Readonly<Record<number, (detail: number, found: Uint8Array) => string>> = {
  [abi.PP2_STATUS_INCOMPLETE]: (needed) => `the bytes end here, the header takes ${needed}`,
  [abi.PP2_STATUS_SIGNATURE]: (byte) => `${hexByte(byte)} is not the signature's byte`,
  [abi.PP2_STATUS_VERSION]: (version) => `version ${version} is not 2`,
  [abi.PP2_STATUS_COMMAND]: (command) => `command ${command} is neither 0 (LOCAL) nor 1 (PROXY)`,
  [abi.PP2_STATUS_FAMILY]: (byte) => {
    return `family and transport ${hexByte(byte)} are none of 00, 11, 12, 21, 22, 31, 32`;
  },
  [abi.PP2_STATUS_ADDRESSES]: (bytes) =>
    `the length leaves no room for addresses of ${bytes} bytes`,
  [abi.PP2_STATUS_TLV_STRAY]: (bytes) => `${bytes} bytes left, a TLV takes at least 3`,
  [abi.PP2_STATUS_TLV_OVERRUN]: (bytes, [type = 0]) => {
    return `TLV ${hexByte(type)} has ${bytes} bytes of value and ends behind the header`;
  },
  [abi.PP2_STATUS_TLV_LONG]: (bytes, [type]) => {
    const isId = type === TLV_TYPES.UNIQUE_ID;
    return `${bytes} bytes of ${isId ? "UNIQUE_ID are more than 128" : "AUTHORITY are more than 255"}`;
  },
  [abi.PP2_STATUS_TLV_SHORT]: (bytes) => `an SSL TLV of ${bytes} bytes, it takes at least 5`,
  [abi.PP2_STATUS_CRC_BYTES]: (bytes) => `a CRC32C of ${bytes} bytes, it takes 4`,
  [abi.PP2_STATUS_CRC_TWICE]: (other) => `a second CRC32C, the first is at byte ${other}`,
  [abi.PP2_STATUS_CRC]: (computed, found) => {
    const right = computed.toString(16).padStart(8, "0");
    return `CRC32C ${hexOf(found)}, that of the header is ${right}`;
  },
};

/** All bytes of a header, as its length field has it. */
function lengthOf(bytes: Uint8Array): number {
  return ADDRESSES_AT + (((bytes[14] ?? 0) << 8) | (bytes[15] ?? 0));
}

function hexByte(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}

/** The address block of a header. */
function endsOf(
  { source, destination }: HeaderOptions,
  local: boolean,
  transport: number,
): Uint8Array {
  if (local) {
    if (source === undefined && destination === undefined) return new Uint8Array(0);
    throw new RangeError("local: such a header carries no source and no destination");
  }
  if (transport === TRANSPORTS.unspecified) {
    throw new RangeError('transport: "unspecified" is for local headers; receivers may refuse it');
  }
  const [from, to] = [endpointBytes("source", source), endpointBytes("destination", destination)];
  if (from.address.length !== to.address.length) {
    throw new RangeError(
      `destination.address: ${destination?.address} is not of the IP version of ${source?.address}`,
    );
  }
  const size = from.address.length;
  const block = new Uint8Array(2 * size + 4);
  block.set(from.address);
  block.set(to.address, size);
  new DataView(block.buffer).setUint32(2 * size, from.port * 0x10000 + to.port);
  return block;
}

function endpointBytes(
  name: string,
  end: Endpoint | undefined,
): { address: Uint8Array; port: number } {
  if (end === undefined) throw new TypeError(`${name}: is missing; only local headers have none`);
  const { address, port } = options(name, end, ENDPOINT);
  if (typeof address !== "string")
    throw new TypeError(`${name}.address: ${shown(address)} is not text`);
  wholeNumber(`${name}.port`, port, 0, 0xffff);
  try {
    return { address: addressBytes(address), port };
  } catch (error) {
    throw new TypeError(`${name}.address: ${(error as Error).message}`);
  }
}

function tlvsOf({ vpce, tlvs = [] }: HeaderOptions): readonly Tlv[] {
  listOf("tlvs", tlvs).forEach((tlv, index) => {
    const { type, value } = options(`tlvs[${index}]`, tlv, TLV);
    wholeNumber(`tlvs[${index}].type`, type, 0, 0xff);
    if (type === TLV_TYPES.CRC32C || type === TLV_TYPES.NOOP) {
      const option = type === TLV_TYPES.NOOP ? "padTo" : "crc32c";
      throw new RangeError(`tlvs[${index}].type: ${type} is the codec's own, see ${option}`);
    }
    if (!(value instanceof Uint8Array)) {
      throw new TypeError(`tlvs[${index}].value: ${shown(value)} is not a Uint8Array`);
    }
    const max = type === TLV_TYPES.UNIQUE_ID ? 128 : type === TLV_TYPES.AUTHORITY ? 255 : 0xffff;
    wholeNumber(`tlvs[${index}].value.length`, value.length, 0, max);
  });
  return vpce === undefined ? tlvs : [awsEndpoint(vpce), ...tlvs];
}

/**
 * Makes an encoder and decoder of PROXY protocol v2 headers. `wasm` is the engine's module as for
 * `createEngine`.
 * @throws EngineError when the module cannot be loaded.
 */
export async function createHeaderCodec(
  wasm?: URL | BufferSource | WebAssembly.Module,
): Promise<HeaderCodec> {
  return new HeaderCodec(await loadEngine(wasm));
}
