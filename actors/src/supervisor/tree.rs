//! The whole tree as it is now, for whoever looks at it.

use std::time::Duration;

use actix::{Addr, Handler, Message};
use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::{ChildStatus, GroupRef, Supervisor};

/// A child, and the children below it where it is a group.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeNode {
    /// How it is.
    pub child: ChildStatus,
    /// Those below it; `None` where it is no group, or does not answer.
    pub children: Option<Vec<TreeNode>>,
}

/// Asks a supervisor for its children, with the way to those that are supervisors.
#[derive(Message)]
#[rtype(result = "Vec<(ChildStatus, Option<Addr<Supervisor>>)>")]
struct Branches;

impl Handler<Branches> for Supervisor {
    type Result = actix::MessageResult<Branches>;

    fn handle(&mut self, _: Branches, _: &mut actix::Context<Self>) -> Self::Result {
        let below = |id| self.children.get(&id)?.body.supervisor();
        let children = self.machine.children();
        let branches = children.map(|child| (ChildStatus::from(child), below(child.id)));
        actix::MessageResult(branches.collect())
    }
}

impl GroupRef {
    /// The children with all that is below them; `None` where nobody answers within `patience`,
    /// such as a supervisor on a thread that something blocks.
    ///
    /// # Panics  Outside of a tokio runtime with time.
    /// # Cancel safety   Nothing is lost.
    pub async fn tree(&self, patience: Duration) -> Option<Vec<TreeNode>> {
        branch(self.addr.clone(), patience).await
    }
}

fn branch(
    supervisor: Addr<Supervisor>,
    patience: Duration,
) -> BoxFuture<'static, Option<Vec<TreeNode>>> {
    async move {
        let asked = supervisor.send(Branches);
        let children = tokio::time::timeout(patience, asked).await.ok()?.ok()?;
        let nodes = children.into_iter().map(async |(child, below)| TreeNode {
            child,
            children: match below {
                Some(below) => branch(below, patience).await,
                None => None,
            },
        });
        Some(join_all(nodes).await)
    }
    .boxed()
}
