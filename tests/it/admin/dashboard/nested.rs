//! The page below a path of another program's router, in a browser.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;

use super::browser::Page;
use super::{LIVE, Stage, nothing, run, serve};
use crate::scripted::{Do, ms, opens_after};

#[tokio::test]
async fn ops_1_the_page_works_below_a_path() {
    let Some(page) = Page::start().await else {
        return;
    };
    let (runtime, script, clients) = run(&["search"], opens_after(1, ms(600_000))).await;
    let (admin, server) = serve(&runtime, None);
    let routers = [
        Router::new().nest("/admin", admin.router()),
        Router::new().nest_service("/admin", admin.router()),
    ];
    let stage = Stage {
        runtime,
        script,
        clients,
        admin,
        server,
        page,
    };
    stage.open(0).await;
    stage.ask(Do::Answer(1)).await;
    for router in routers {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = listener.await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let page = &stage.page;
        page.visit(&format!("http://{address}/admin#search")).await;
        page.until(LIVE).await;
        page.until("document.querySelector('[data-name=search] .health').innerText === 'Down'")
            .await;
        page.until("document.querySelector('[data-name=search] .mark-list').innerText !== ''")
            .await;
        page.visit("about:blank").await;
        serving.abort();
    }
    stage.finish(nothing).await;
}
