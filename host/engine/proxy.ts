/**
 * PROXY headers of services: the option checked, and headers without tuple and CRC32C for the
 * engine to complete. The engine's own encoder makes them.
 */
import * as abi from "../../assembly/abi.ts";
import type { HeaderCodec } from "../pp2/codec.ts";
import type { HeaderPlacement, ProxyProtocolOptions } from "./api.ts";
import { options as checkOptions, type OptionNames, oneOf, truth } from "./check.ts";

/** A header of each IP version with all addresses and ports zero. */
export interface HeaderTemplates {
  v4: Uint8Array;
  v6: Uint8Array;
}

/** Where the CRC32C, the first TLV, stands in a template. */
const CRC_AT = { v4: 16 + 12 + 3, v6: 16 + 36 + 3 } as const;

/** What a service record says of its headers, as words by their field; 0 where it has none. */
export function headerFields(
  templates: HeaderTemplates | undefined,
  address: number,
  address6: number,
): [field: number, value: number][] {
  const bytes = templates ? templates.v4.length | (templates.v6.length << 16) : 0;
  const sums = templates ? sumOf(templates, "v4") | (sumOf(templates, "v6") << 16) : 0;
  return [
    [abi.SERVICE_PP2_TEMPLATE, address],
    [abi.SERVICE_PP2_TEMPLATE6, address6],
    [abi.SERVICE_PP2_BYTES, bytes],
    [abi.SERVICE_PP2_SUM, sums],
  ];
}

/** Writes into a service's traits by how many bytes a header of IPv4 moves the numbers of its flows. */
export function putShift(view: DataView, traits: number, bytes: number): void {
  view.setUint16(traits + abi.TRAIT_SHIFT, bytes);
}

/** One's complement sum of a template's words as a little-endian machine loads them (RFC 1071). */
function sumOf(templates: HeaderTemplates, family: "v4" | "v6"): number {
  const template = templates[family];
  let sum = 0;
  for (let at = 0; at < template.length; at++) {
    const isCrc = at >= CRC_AT[family] && at < CRC_AT[family] + 4;
    if (!isCrc) sum += (template[at] ?? 0) << ((at & 1) << 3);
  }
  return sum === 0 ? 0 : ((sum - 1) % 0xffff) + 1;
}

/** @throws TypeError or RangeError naming the option under `proxyProtocol` */
type TemplateMaker = (options: ProxyProtocolOptions) => HeaderTemplates;

const OPTIONS: OptionNames<ProxyProtocolOptions> = {
  placement: true,
  vpce: true,
  tlvs: true,
  padTo: true,
  udp: true,
};
const PLACEMENTS: Record<HeaderPlacement, number> = {
  on_first_ack_with_payload: 0,
  on_first_ack: abi.SERVICE_FLAG_PP2_FIRST_ACK,
};

/**
 * The headers of all services by number. What a service had stays when it has none any more: flows
 * may still be about to send theirs, and established ones count on its length.
 */
export class ServiceHeaders {
  readonly #make: TemplateMaker;
  readonly #templates = new Map<number, HeaderTemplates>();

  /** For engines that have room for headers as `room` (CONFIG_PP2_*) says. */
  constructor(codec: HeaderCodec, room: number) {
    this.#make = templateMaker(codec, room);
  }

  /** @throws TypeError or RangeError naming the option, and before anything has changed */
  check(service: number, options: ProxyProtocolOptions | undefined): HeaderTemplates | undefined {
    const before = this.#templates.get(service);
    if (options === undefined) return before;
    const templates = this.#make(options);
    for (const family of ["v4", "v6"] as const) {
      const [now, then] = [templates[family].length, before?.[family].length];
      if (then === undefined || then === now) continue;
      throw new RangeError(
        `proxyProtocol: headers of ${now} bytes; flows of service ${service} may have ${then}, see padTo`,
      );
    }
    return templates;
  }

  keep(service: number, templates: HeaderTemplates | undefined): void {
    if (templates) this.#templates.set(service, templates);
  }

  get(service: number): HeaderTemplates | undefined {
    return this.#templates.get(service);
  }

  /** The number is another service's from here on. */
  forget(service: number): void {
    this.#templates.delete(service);
  }
}

/** SERVICE_FLAG_PP2* of a service. @throws TypeError or RangeError */
export function headerFlags(options: ProxyProtocolOptions | undefined): number {
  if (options === undefined) return 0;
  const { placement, udp } = checkOptions("proxyProtocol", options, OPTIONS);
  const hasDatagrams = truth("proxyProtocol.udp", udp ?? false);
  return (
    abi.SERVICE_FLAG_PP2 |
    oneOf("proxyProtocol.placement", placement ?? "on_first_ack_with_payload", PLACEMENTS) |
    (hasDatagrams ? abi.SERVICE_FLAG_PP2_UDP : 0)
  );
}

function templateMaker(codec: HeaderCodec, room: number): TemplateMaker {
  return ({ vpce, tlvs, padTo, udp }) => {
    if (room === 0) throw new RangeError("proxyProtocol: the engine was made without room for it");
    if (udp && (room & abi.CONFIG_PP2_UDP) === 0) {
      throw new RangeError('proxyProtocol.udp: the engine was made without proxyProtocol "udp"');
    }
    const [v4, v6] = ["0.0.0.0", "::"].map((address) => {
      const end = { address, port: 0 };
      try {
        return codec.encode({
          source: end,
          destination: end,
          ...(vpce !== undefined && { vpce }),
          ...(tlvs !== undefined && { tlvs }),
          ...(padTo !== undefined && { padTo }),
        });
      } catch (error) {
        if (error instanceof TypeError) throw new TypeError(`proxyProtocol.${error.message}`);
        throw new RangeError(`proxyProtocol.${(error as Error).message}`);
      }
    });
    return { v4, v6 } as HeaderTemplates;
  };
}
