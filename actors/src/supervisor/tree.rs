//! A snapshot of the whole supervision tree.

use std::time::Duration;

use actix::{Addr, Handler, Message};
use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::{ChildStatus, GroupRef, Supervisor};

/// A child, and the children below it if it is a group.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeNode {
    /// Its status.
    pub child: ChildStatus,
    /// The children below it; `None` if it is no group, or does not answer.
    pub children: Option<Vec<TreeNode>>,
}

/// Asks a supervisor for its children, with the addresses of those that are supervisors.
#[derive(Message)]
#[rtype(result = "Vec<(ChildStatus, Option<Addr<Supervisor>>)>")]
struct ListBranches;

impl Handler<ListBranches> for Supervisor {
    type Result = actix::MessageResult<ListBranches>;

    fn handle(&mut self, _: ListBranches, _: &mut actix::Context<Self>) -> Self::Result {
        let below = |id| self.children.get(&id)?.body.supervisor();
        let children = self.machine.children();
        let branches = children.map(|child| (ChildStatus::from(child), below(child.id)));
        actix::MessageResult(branches.collect())
    }
}

impl GroupRef {
    /// Returns the children and all their descendants; `None` if the supervisor does not answer
    /// within `patience`, such as one on a blocked thread.
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
        let asked = supervisor.send(ListBranches);
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
