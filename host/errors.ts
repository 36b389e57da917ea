/**
 * The errors that a user can cause or meet. Each is one line that names the file, the place and
 * both values, and carries the exit status of the command.
 */

export class FlowplaneError extends Error {
  readonly exitCode: number = 1;
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A capture that cannot be read or written: what came before the place it names is good. */
export class CaptureError extends FlowplaneError {
  override readonly exitCode = 1;
}

/** A command that was called wrongly. */
export class UsageError extends FlowplaneError {
  override readonly exitCode = 2;
}

/** A configuration that is wrong: the message names the path, the value and the range. */
export class ConfigError extends FlowplaneError {
  override readonly exitCode = 2;
}

/** The engine cannot be loaded, or has stopped: then nothing of it can be trusted any more. */
export class EngineError extends FlowplaneError {
  override readonly exitCode = 1;
}

/** A PROXY protocol v2 header that a receiver must refuse, or that is not all there. */
export class HeaderError extends FlowplaneError {
  override readonly exitCode = 1;
  /** Byte at which it is wrong, counted from the header's begin. */
  readonly byte: number;
  /** When bytes are missing: how many the header takes, as far as can be told. */
  readonly needed: number | undefined;
  constructor(byte: number, reason: string, options: { needed?: number | undefined } = {}) {
    super(`byte ${byte}: ${reason}`);
    this.byte = byte;
    this.needed = options.needed;
  }
}

const KINDS = { FlowplaneError, CaptureError, UsageError, ConfigError, EngineError, HeaderError };

/** An error of another thread, which comes without its class, with it again. */
export function revived(error: unknown): unknown {
  if (!(error instanceof Error) || !Object.hasOwn(KINDS, error.name)) return error;
  return Object.setPrototypeOf(error, KINDS[error.name as keyof typeof KINDS].prototype);
}

/** `ENOENT: no such file or directory`, without the call and the path that Node appends. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/, [a-z]+( '.*')?$/, "");
}
