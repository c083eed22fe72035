//! Binds the addresses that the configuration names.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::{Config, Roles};
use crate::error::Error;

/// The listeners of the process' roles; bound before anything runs.
#[derive(Debug, Default)]
pub(crate) struct BoundListeners {
    pub(crate) api: Option<TcpListener>,
    pub(crate) http: Option<TcpListener>,
    pub(crate) internal: Option<TcpListener>,
    pub(crate) api_address: Option<SocketAddr>,
    pub(crate) http_address: Option<SocketAddr>,
}

impl BoundListeners {
    pub(crate) async fn bind(config: &Config, roles: Roles) -> Result<Self, Error> {
        let mut bound = Self::default();
        if roles.gateway {
            let (api, address) = bind("listen", config.listen).await?;
            (bound.api, bound.api_address) = (Some(api), Some(address));
            let (http, address) = bind("http_listen", config.http_listen).await?;
            (bound.http, bound.http_address) = (Some(http), Some(address));
        }
        if let Some(address) = config.cluster.listen
            && (roles.invoker || roles.controller || roles.triggers)
        {
            bound.internal = Some(bind("cluster.listen", address).await?.0);
        }
        Ok(bound)
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use by another program: stop it, or choose another port (0 takes \
                 any free one)"
                    .into()
            }
            _ => error.to_string(),
        };
        Error::Listen { name, address: address.to_string(), reason }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
