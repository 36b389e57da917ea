/**
 * PROXY headers of services: the option checked, and headers without tuple and CRC32C for the
 * engine to complete. The engine's own encoder makes them.
 */
import * as abi from "../../assembly/abi.ts";
import { HeaderCodec } from "../pp2/codec.ts";
import type { HeaderPlacement, ProxyProtocolOptions } from "./api.ts";
import { options as checkOptions, type OptionNames, oneOf, truth } from "./check.ts";
import type { EngineExports } from "./module.ts";

/** A header of each IP version with all addresses and ports zero. */
export interface HeaderTemplates {
  v4: Uint8Array;
  v6: Uint8Array;
}

/** @throws TypeError or RangeError naming the option under `proxyProtocol` */
export type TemplateMaker = (options: ProxyProtocolOptions) => HeaderTemplates;

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

/** Makes templates for an engine that has room for headers as `room` (CONFIG_PP2_*) says. */
export function templateMaker(exports: EngineExports, room: number): TemplateMaker {
  return ({ vpce, tlvs, padTo, udp }) => {
    if (room === 0) throw new RangeError("proxyProtocol: the engine was made without room for it");
    if (udp && (room & abi.CONFIG_PP2_UDP) === 0) {
      throw new RangeError('proxyProtocol.udp: the engine was made without proxyProtocol "udp"');
    }
    const codec = new HeaderCodec(exports);
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
