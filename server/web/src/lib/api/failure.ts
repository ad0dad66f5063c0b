/** What can go wrong with a request, as the views tell it. */

export interface Failure {
  /** 0: no answer at all. */
  status: number;
  code: string;
  message: string;
  /** Stands in the server's log; empty if the server gave none. */
  id: string;
  retryAfterS: number | null;
}

export class ApiError extends Error implements Failure {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly id = '',
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
    this.name = 'ApiError';
  }

  /** From an answer ≥ 400 of either API; a proxy's answer has neither shape and is told by its status. */
  static async from(response: Response): Promise<ApiError> {
    const retry = Number(response.headers.get('retry-after') ?? Number.NaN);
    const retryAfterS = Number.isFinite(retry) ? retry : null;
    const body: unknown = await response.json().catch(() => null);
    const { error, errorType } = (body ?? {}) as { error?: unknown; errorType?: unknown };
    if (error && typeof error === 'object') {
      const { code, message, id } = error as Record<string, unknown>;
      return new ApiError(response.status, String(code ?? ''), String(message ?? ''), String(id ?? ''), retryAfterS);
    }
    if (typeof error === 'string') return new ApiError(response.status, String(errorType ?? ''), error, '', retryAfterS);
    return new ApiError(response.status, 'http', `HTTP ${response.status} ${response.statusText}`.trim(), '', retryAfterS);
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export function failureOf(error: unknown): Failure {
  if (error instanceof ApiError) return error;
  return { status: 0, code: 'unreachable', message: error instanceof Error ? error.message : String(error), id: '', retryAfterS: null };
}
