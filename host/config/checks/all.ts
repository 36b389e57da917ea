/** What no key of a network can say alone: references, overlaps, contradictions. */

import { Directory } from "../../control/directory.ts";
import type { Problem } from "../path.ts";
import type { NetworkConfig } from "../schema.ts";
import { accessProblems } from "./access.ts";
import { balancingProblems } from "./balancing.ts";
import { labProblems } from "./lab.ts";
import { networkProblems } from "./network.ts";
import { placementProblems } from "./placement.ts";
import { timelineProblems } from "./timeline.ts";

/** Every problem, lazily: the first one is the error. */
export function* networkConfigProblems(config: NetworkConfig): Generator<Problem> {
  const directory = new Directory(config);
  yield* networkProblems(directory);
  yield* balancingProblems(directory);
  yield* accessProblems(directory);
  yield* placementProblems(directory);
  yield* timelineProblems(directory);
  yield* labProblems(directory);
}
