/** `flowplane pp2 encode` and `flowplane pp2 decode`: PROXY protocol v2 headers by hand. */

import type { Endpoint } from "../engine/api.ts";
import { FlowplaneError, UsageError } from "../errors.ts";
import { createHeaderCodec, type HeaderOptions } from "../pp2/codec.ts";
import { describeHeader } from "../pp2/describe.ts";
import { hexOf, TLV_TYPES, type Tlv } from "../pp2/tlv.ts";
import { jsonReport } from "../report/json.ts";
import { headerText } from "../report/pp2.ts";
import { readWhole, statusOf } from "./files.ts";
import type { Pp2DecodeFlags, Pp2EncodeFlags } from "./program.ts";
import { Terminal } from "./terminal.ts";

const PORT = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/;

/** @throws {UsageError} naming the flag */
export async function runEncode(flags: Pp2EncodeFlags): Promise<void> {
  const options: HeaderOptions = { tlvs: flags.tlv.map(tlvOf), padTo: flags.pad };
  if (flags.source !== undefined) options.source = endOf("--source", flags.source);
  if (flags.destination !== undefined)
    options.destination = endOf("--destination", flags.destination);
  if (flags.vpce !== undefined) options.vpce = flags.vpce;
  if (flags.udp) options.transport = "udp";
  if (flags.local) options.local = true;
  const codec = await createHeaderCodec();
  let header: Uint8Array;
  try {
    header = codec.encode(options);
  } catch (error) {
    if (error instanceof FlowplaneError) throw error;
    throw new UsageError(`--${(error as Error).message}`);
  }
  if (flags.hex) new Terminal(flags).result(hexOf(header));
  else process.stdout.write(header);
}

/** @throws {FlowplaneError} naming the byte at which a receiver refuses the header */
export async function runDecode(header: string, flags: Pp2DecodeFlags): Promise<void> {
  const codec = await createHeaderCodec();
  const { name, bytes } = await read(header);
  try {
    const described = describeHeader(codec.decode(bytes), bytes.length);
    new Terminal(flags).result(flags.json ? jsonReport(described) : headerText(described));
  } catch (error) {
    if (!(error instanceof FlowplaneError)) throw error;
    throw new FlowplaneError(`${name}: ${error.message}`, { cause: error });
  }
}

function endOf(flag: string, word: string): Endpoint {
  const [, ipv6, other, port] = word.match(PORT) ?? [];
  const address = ipv6 ?? other;
  if (address === undefined || Number(port) > 0xffff) {
    throw new UsageError(
      `${flag}: "${word}" is not an address and a port, 10.0.0.1:80 or [::1]:80`,
    );
  }
  return { address, port: Number(port) };
}

function tlvOf(word: string): Tlv {
  const [, name = "", digits = ""] = word.match(/^([^=]*)=((?:[0-9a-f]{2})*)$/i) ?? [];
  const named: Record<string, number> = TLV_TYPES;
  const key = name.toUpperCase().replaceAll("-", "_");
  const type = Object.hasOwn(named, key)
    ? named[key]
    : /^\w+$/.test(name)
      ? Number(name)
      : undefined;
  if (type === undefined || !Number.isInteger(type) || type > 0xff) {
    throw new UsageError(`--tlv: "${word}" is not TYPE=HEX, as in 0xE0=00ff or AUTHORITY=612e62`);
  }
  // The codec writes these itself.
  if (type === TLV_TYPES.NOOP) throw new UsageError(`--tlv: "${word}" is padding; --pad makes it`);
  if (type === TLV_TYPES.CRC32C) {
    throw new UsageError(`--tlv: "${word}" is the checksum, which every header has`);
  }
  return { type, value: Buffer.from(digits, "hex") };
}

/** The bytes of a file or pipe, of hex digits in it, or of hex digits as they are. */
async function read(header: string): Promise<{ name: string; bytes: Uint8Array }> {
  const status = header === "-" ? undefined : statusOf(header);
  if (header !== "-" && !(status?.isFile() || status?.isFIFO())) {
    const bytes = hexBytes(header);
    if (bytes) return { name: "header", bytes };
    throw new FlowplaneError(`${header}: neither a file nor hex digits`);
  }
  const content = await readWhole(header);
  const name = header === "-" ? "standard input" : header;
  return { name, bytes: hexBytes(content.toString("latin1")) ?? content };
}

/** Undefined when it is anything but pairs of hex digits and white space. */
function hexBytes(text: string): Uint8Array | undefined {
  const digits = text.replace(/\s+/g, "");
  return /^(?:[0-9a-f]{2})+$/i.test(digits) ? Buffer.from(digits, "hex") : undefined;
}
