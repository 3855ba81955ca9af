//! The demo's gateway and admin side, on loopback ports that the system picks.
//!
//! The agents do not use them. They are for the user: to call the same failing servers through the
//! gateway, and to watch everything on the admin side.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};

use breakerbox::Runtime;
use breakerbox::admin::{Admin, Phase, Server};
use breakerbox::config::Settings;
use breakerbox::gateway::Gateway;

use super::DemoError;
use breakerbox::simulated::Site;

/// The running gateway and admin side.
pub(crate) struct DemoServers {
    gateway: Gateway,
    admin: Admin,
    server: Server,
    /// Path of an example call through the gateway.
    example: String,
}

/// Returns the gateway's name for a server. The agents' dependency has the server's own name; the
/// gateway's is separate and has its own breaker.
fn through_the_gateway(name: &str) -> String {
    format!("{name}_http")
}

impl DemoServers {
    /// Starts both, and the gateway's dependencies.
    pub(crate) async fn open(
        runtime: &Runtime,
        settings: &Settings,
        sites: &[Site],
    ) -> Result<Self, DemoError> {
        let admin = Admin::new(runtime.clone(), settings);
        let server = admin.serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)?;
        let gateway = Gateway::start(&settings.gateway, runtime)?;
        for site in sites {
            let config = settings.dependencies.get(&site.name);
            let config = config.cloned().unwrap_or_default();
            let (name, url) = (through_the_gateway(&site.name), site.url());
            gateway.put(&name, &config, &url, "the demo").await?;
        }
        admin.set_phase(Phase::Ready);
        let first = sites.first().map_or("", |site| &site.name);
        Ok(Self {
            gateway,
            admin,
            server,
            example: format!("{}/actors", through_the_gateway(first)),
        })
    }

    /// Prints their addresses.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (admin, gateway) = (self.server.address(), self.gateway.address());
        writeln!(out, "  admin            http://{admin}/")?;
        writeln!(out, "  gateway          http://{gateway}/{}", self.example)
    }

    /// Stops them after the requests in flight.
    pub(crate) async fn close(self) {
        self.admin.set_phase(Phase::ShuttingDown);
        // Requests over the time limit are cut off.
        let _ = self.gateway.shutdown().await;
        self.server.stop();
    }
}
