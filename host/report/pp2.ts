/** A PROXY protocol v2 header for a person: its fields, then a table of its TLVs. */
import type { DescribedHeader } from "../pp2/describe.ts";
import { endpointText } from "./flows.ts";
import { type Column, table } from "./table.ts";
import { counted } from "./units.ts";

const COLUMNS: Column[] = [
  { title: "byte", align: "right" },
  { title: "type", align: "left" },
  { title: "name", align: "left" },
  { title: "bytes", align: "right" },
  { title: "value", align: "left" },
];

/** Without a newline at the end. */
export function headerText(header: DescribedHeader): string {
  const { command, transport, source, destination, headerBytes, payloadBytes, crc32c } = header;
  const fields = [
    ["header", `PROXY protocol v2, ${counted(headerBytes, "byte")}`],
    ["command", command === "local" ? "LOCAL: the sender speaks for itself" : "PROXY"],
    ["transport", transport],
    ...(source ? [["source", endpointText(source)]] : []),
    ...(destination ? [["destination", endpointText(destination)]] : []),
    ["CRC32C", crc32c === undefined ? "none" : `${crc32c}, right`],
    ["payload", counted(payloadBytes, "byte")],
  ];
  const plain: Column[] = [
    { title: "", align: "left" },
    { title: "", align: "left" },
  ];
  const rows = header.tlvs.map(({ offset, type, name, bytes, text }) => {
    return [`${offset}`, `0x${type.toString(16).padStart(2, "0")}`, name, `${bytes}`, text];
  });
  const lines = table(plain, fields);
  return [...lines, ...(rows.length > 0 ? ["", ...table(COLUMNS, rows)] : [])].join("\n");
}
