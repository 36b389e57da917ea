/**
 * Errors that a user can do something about. Each carries the exit status of the command line:
 * 1 when it could not be done, 2 when the call or the configuration is wrong. The message is one
 * line that names the file, the place in it and both values.
 */

export class FlowplaneError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.name = new.target.name;
    this.exitCode = exitCode;
  }
}

/** A capture that cannot be read or written. */
export class CaptureError extends FlowplaneError {
  constructor(message: string) {
    super(message, 1);
  }
}

/** A call that makes no sense: unknown flag, value out of range. */
export class UsageError extends FlowplaneError {
  constructor(message: string) {
    super(message, 2);
  }
}

/** A configuration that cannot be used. */
export class ConfigError extends FlowplaneError {
  constructor(message: string) {
    super(message, 2);
  }
}
