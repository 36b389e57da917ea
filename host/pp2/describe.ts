/** A decoded header with everything named, as plain data: what `flowplane pp2 decode --json` prints. */
import type { Endpoint } from "../engine/api.ts";
import type { ProxyHeader } from "./codec.ts";
import { hexOf, tlvName, tlvText } from "./tlv.ts";

export interface DescribedTlv {
  /** Byte of the header at which it begins. */
  offset: number;
  type: number;
  name: string;
  /** Of the value. */
  bytes: number;
  hex: string;
  text: string;
}

export interface DescribedHeader {
  schema: "flowplane.pp2/1";
  version: 2;
  command: ProxyHeader["command"];
  transport: ProxyHeader["transport"];
  source?: Endpoint;
  destination?: Endpoint;
  headerBytes: number;
  /** What followed the header. */
  payloadBytes: number;
  /** Eight hex digits; absent when the header has none. A wrong one is an error. */
  crc32c?: string;
  tlvs: DescribedTlv[];
}

export function describeHeader(header: ProxyHeader, givenBytes: number): DescribedHeader {
  const { command, transport, source, destination, bytes, crc32c } = header;
  // They end where the header does.
  let at = bytes - header.tlvs.reduce((sum, { value }) => sum + 3 + value.length, 0);
  const tlvs = header.tlvs.map((tlv) => {
    const { type, value } = tlv;
    const offset = at;
    at += 3 + value.length;
    const hex = hexOf(value);
    return { offset, type, name: tlvName(type), bytes: value.length, hex, text: tlvText(tlv) };
  });
  return {
    schema: "flowplane.pp2/1",
    version: 2,
    command,
    transport,
    ...(source && { source }),
    ...(destination && { destination }),
    headerBytes: bytes,
    payloadBytes: givenBytes - bytes,
    ...(crc32c !== undefined && { crc32c: crc32c.toString(16).padStart(8, "0") }),
    tlvs,
  };
}
