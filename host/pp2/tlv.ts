/**
 * TLVs of PROXY protocol v2: their names, and the values that they carry (proxy-protocol.txt
 * section 2.2; AWS: PROXY protocol of NLB target groups; Azure: Private Link service; Google
 * Cloud: Private Service Connect).
 */
import { shown, wholeNumber } from "../engine/check.ts";

/** A type-length-value vector of a header. */
export interface Tlv {
  /** 0 to 255. */
  type: number;
  value: Uint8Array;
}

/** TLV types by name. */
export const TLV_TYPES = {
  ALPN: 0x01,
  AUTHORITY: 0x02,
  CRC32C: 0x03,
  NOOP: 0x04,
  UNIQUE_ID: 0x05,
  SSL: 0x20,
  SSL_VERSION: 0x21,
  SSL_CN: 0x22,
  SSL_CIPHER: 0x23,
  SSL_SIG_ALG: 0x24,
  SSL_KEY_ALG: 0x25,
  SSL_GROUP: 0x26,
  SSL_SIG_SCHEME: 0x27,
  SSL_CLIENT_CERT: 0x28,
  NETNS: 0x30,
  GCP: 0xe0,
  AWS: 0xea,
  AZURE: 0xee,
} as const;

/** A name of `TLV_TYPES`. */
export type TlvName = keyof typeof TLV_TYPES;

const NAMES = new Map<number, TlvName>(
  Object.entries(TLV_TYPES).map(([name, type]) => [type, name as TlvName]),
);
const AWS_VPCE_ID = 0x01;
const AZURE_LINK_ID = 0x01;
const SSL_HEAD_BYTES = 5;
const TEXTS: ReadonlySet<TlvName | undefined> = new Set([
  "ALPN",
  "AUTHORITY",
  "NETNS",
  "SSL_VERSION",
  "SSL_CN",
  "SSL_CIPHER",
  "SSL_SIG_ALG",
  "SSL_KEY_ALG",
  "SSL_GROUP",
  "SSL_SIG_SCHEME",
]);

const decoder = new TextDecoder("utf-8", { fatal: true });

/** The name of a TLV type, or its range. */
export function tlvName(type: number): string {
  const name = NAMES.get(type);
  if (name !== undefined) return name;
  if (type >= 0xe0 && type <= 0xef) return "custom";
  if (type >= 0xf0 && type <= 0xf7) return "experiment";
  return type >= 0xf8 ? "future" : "unknown";
}

/**
 * The endpoint id that AWS sends, `vpce-` and hexadecimal digits.
 * @throws RangeError when it has characters that receivers refuse (they take letters, digits, -)
 */
export function awsEndpoint(id: string): Tlv {
  if (typeof id !== "string" || !/^[A-Za-z0-9-]{1,255}$/.test(id)) {
    throw new RangeError(`vpce: ${shown(id)} is not 1 to 255 letters, digits and hyphens`);
  }
  const value = new Uint8Array(1 + id.length);
  value[0] = AWS_VPCE_ID;
  for (let at = 0; at < id.length; at++) value[at + 1] = id.charCodeAt(at);
  return { type: TLV_TYPES.AWS, value };
}

/** Azure's link id, a 32-bit number that it stores little-endian. @throws RangeError */
export function azureLink(linkId: number): Tlv {
  wholeNumber("linkId", linkId, 0, 0xffffffff);
  const value = new Uint8Array(5);
  value[0] = AZURE_LINK_ID;
  new DataView(value.buffer).setUint32(1, linkId, true);
  return { type: TLV_TYPES.AZURE, value };
}

/** Google Cloud's connection id, a 64-bit number stored big-endian. @throws RangeError */
export function gcpConnection(connectionId: bigint): Tlv {
  if (typeof connectionId !== "bigint" || BigInt.asUintN(64, connectionId) !== connectionId) {
    throw new RangeError(`connectionId: ${shown(connectionId)} is not from 0n to 2n ** 64n - 1n`);
  }
  const value = new Uint8Array(8);
  new DataView(value.buffer).setBigUint64(0, connectionId);
  return { type: TLV_TYPES.GCP, value };
}

/** What an SSL TLV says of the client's connection. */
export interface SslState {
  /** The client came over TLS. */
  isTls: boolean;
  /** It showed a certificate on this connection. */
  hasCertificate: boolean;
  /** It showed one in this TLS session. */
  hasSessionCertificate: boolean;
  /** The certificate, if any, was found good. */
  isVerified: boolean;
  tlvs: Tlv[];
}

/** An SSL TLV with sub-TLVs. @throws RangeError when one is longer than 65,535 bytes */
export function sslTlv(state: SslState): Tlv {
  const { isTls, hasCertificate, hasSessionCertificate, isVerified, tlvs } = state;
  const client = (isTls ? 1 : 0) | (hasCertificate ? 2 : 0) | (hasSessionCertificate ? 4 : 0);
  const bytes = [client, 0, 0, 0, isVerified ? 0 : 1];
  for (const { type, value } of tlvs) {
    wholeNumber("tlvs: value.length", value.length, 0, 0xffff);
    bytes.push(type, value.length >> 8, value.length & 0xff, ...value);
  }
  return { type: TLV_TYPES.SSL, value: Uint8Array.from(bytes) };
}

/** Reads the value of an SSL TLV; undefined when it is none. */
export function sslState({ type, value }: Tlv): SslState | undefined {
  if (type !== TLV_TYPES.SSL || value.length < SSL_HEAD_BYTES) return undefined;
  const client = value[0] ?? 0;
  return {
    isTls: (client & 1) !== 0,
    hasCertificate: (client & 2) !== 0,
    hasSessionCertificate: (client & 4) !== 0,
    isVerified: value.subarray(1, SSL_HEAD_BYTES).every((byte) => byte === 0),
    tlvs: readTlvs(value, SSL_HEAD_BYTES, value.length),
  };
}

/** TLVs of bytes in which every length has been checked. Values are views of `bytes`. */
export function readTlvs(bytes: Uint8Array, start: number, end: number): Tlv[] {
  const tlvs: Tlv[] = [];
  for (let at = start; at < end; ) {
    const next = at + 3 + (((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0));
    tlvs.push({ type: bytes[at] ?? 0, value: bytes.subarray(at + 3, next) });
    at = next;
  }
  return tlvs;
}

/**
 * What a TLV says, as text: names and ids as they are, Azure's and Google's ids as decimal
 * numbers, everything else as hexadecimal digits.
 */
export function tlvText(tlv: Tlv): string {
  const { type, value } = tlv;
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  if (type === TLV_TYPES.AWS && value[0] === AWS_VPCE_ID) {
    return textOf(value.subarray(1)) ?? hexOf(value);
  }
  if (type === TLV_TYPES.AZURE && value[0] === AZURE_LINK_ID && value.length === 5) {
    return `${view.getUint32(1, true)}`;
  }
  if (type === TLV_TYPES.GCP && value.length === 8) return `${view.getBigUint64(0)}`;
  const ssl = sslState(tlv);
  if (ssl) return sslText(ssl);
  if (TEXTS.has(NAMES.get(type))) return textOf(value) ?? hexOf(value);
  return type === TLV_TYPES.NOOP && value.every((byte) => byte === 0) ? "zeros" : hexOf(value);
}

function sslText(ssl: SslState): string {
  const parts = [ssl.isTls ? "TLS" : "no TLS"];
  if (ssl.hasCertificate) parts.push("certificate");
  if (ssl.hasSessionCertificate) parts.push("certificate in session");
  if (ssl.hasCertificate || ssl.hasSessionCertificate) {
    parts.push(ssl.isVerified ? "verified" : "not verified");
  }
  const named = ssl.tlvs.map((tlv) => `${tlvName(tlv.type).replace("SSL_", "")}=${tlvText(tlv)}`);
  return [...parts, ...named].join(", ");
}

/** Printable text, or undefined when the bytes are anything else. */
function textOf(value: Uint8Array): string | undefined {
  try {
    const text = decoder.decode(value);
    return /^[^\p{Cc}\p{Cf}\u2028\u2029]*$/u.test(text) ? text : undefined;
  } catch {
    return undefined;
  }
}

export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
