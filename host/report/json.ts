/** Reports for programs: one JSON document, indented by two, without a newline at its end. */

/** The document of a replay (`flowplane.replay/1`) or of a flow listing (`flowplane.flows/1`). */
export function jsonReport(document: { schema: string }): string {
  return JSON.stringify(document, null, 2);
}
