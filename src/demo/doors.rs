//! The demo's doors: the gateway and the admin side, on loopback ports that the system picks.
//!
//! The agents do not come this way. It is for whoever watches: what a call through the gateway
//! gets while the same servers break, and what the admin side tells of all of it.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};

use breakerbox::Runtime;
use breakerbox::admin::{Admin, Phase, Server};
use breakerbox::config::Settings;
use breakerbox::gateway::Gateway;

use super::DemoError;
use crate::simulated::Site;

/// Both, open.
pub(crate) struct Doors {
    gateway: Gateway,
    admin: Admin,
    server: Server,
    /// A path for a call through the gateway.
    example: String,
}

/// The name under which callers reach a server through the gateway. The agents' own dependency has
/// the server's name; this one has a breaker of its own.
fn through_the_gateway(name: &str) -> String {
    format!("{name}_http")
}

impl Doors {
    /// Opens them, with what is behind the gateway.
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

    /// Tells where they are.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (admin, gateway) = (self.server.address(), self.gateway.address());
        writeln!(out, "  admin            http://{admin}/")?;
        writeln!(out, "  gateway          http://{gateway}/{}", self.example)
    }

    /// Closes them; requests in flight end first.
    pub(crate) async fn close(self) {
        self.admin.set_phase(Phase::ShuttingDown);
        // What had to be cut was cut.
        let _ = self.gateway.shutdown().await;
        self.server.stop();
    }
}
