/** How requests reach the Jupyter server: by the application's own means, or by what the page says of its server. */

export interface ITransport {
  kind: string;
  /** The server's address, the same on all pages of it; without it a page keeps to itself. */
  server?: string;
  /** `path` is relative to the server's base_url. */
  request(path: string, init: RequestInit): Promise<Response>;
}

/** Why a server has not done what was asked. */
export interface IRefusal {
  status: number;
  /** The name of its error; empty where it was not our extension that answered. */
  kind: string;
  message: string;
}

export async function refusalOf(response: Response): Promise<IRefusal> {
  const body: unknown = await response.json().catch(() => null);
  const said = (typeof body === 'object' && body !== null ? body : {}) as { error?: unknown; message?: unknown };
  return {
    status: response.status,
    kind: typeof said.error === 'string' ? said.error : '',
    message: typeof said.message === 'string' ? said.message : ''
  };
}

function cookie(name: string): string | undefined {
  const found = document.cookie.match(`(?:^|; )${name}=([^;]*)`);
  return found ? decodeURIComponent(found[1]) : undefined;
}

/** Without the plugin: JupyterLab and Notebook 7 put address and token into the page; null where no Jupyter server made the page. */
export function pageTransport(): ITransport | null {
  const text = typeof document === 'undefined' ? null : document.getElementById('jupyter-config-data')?.textContent;
  if (!text) {
    return null;
  }
  const config = JSON.parse(text) as { baseUrl?: string; token?: string };
  const base = new URL(config.baseUrl ?? '/', location.href);
  return {
    kind: 'page',
    server: base.href,
    request: (path, init) => {
      const headers = new Headers(init.headers);
      if (config.token) {
        headers.set('Authorization', `token ${config.token}`);
      }
      const xsrf = cookie('_xsrf');
      if (xsrf) {
        headers.set('X-XSRFToken', xsrf);
      }
      return fetch(new URL(path, base), { credentials: 'same-origin', cache: 'no-store', ...init, headers });
    }
  };
}
