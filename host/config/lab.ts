/** The schema of what only a live lab has. */

import type { z } from "zod";
import { name, object } from "./parts.ts";

export const lab = object({
  name,
});

export type LabConfig = z.output<typeof lab>;
