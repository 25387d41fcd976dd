//! `sandhold doctor --prove`: tries to break out of sandboxes of this configuration.
//!
//! Two sandboxes are made. The program of `sandhold_prove` runs on the host, for the controls, and in the first one, as
//! each user; the second one is the neighbour that must not be reached, and small: the bombs go off there.

mod host;
mod host_side;
mod report;
mod sandboxes;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result, bail};
use sandhold_prove::{Control, Facts, Found, Kind, Line, Listed, Place, all, judge};

use self::{
    host::Host,
    report::{Report, Row},
    sandboxes::{Sandboxes, Who},
};
use crate::{
    daemon,
    provider::Connected,
    settings::{Provider, Settings},
};

/// Nothing could be tested.
const NOTHING: u8 = 2;

pub(crate) async fn run(json: bool, settings: &Settings) -> Result<ExitCode> {
    if !matches!(settings.provider, Provider::Local) {
        bail!("--prove tries the local engine alone; leave out --provider and SANDHOLD_URL, or give --provider local");
    }
    let connected = Connected::without_spares(settings)?;
    let proven = prove(&connected).await;
    connected.shutdown().await;
    let report = match proven {
        Ok(report) => report,
        Err(error) => return Ok(untried(&error)),
    };
    report.print(json)?;
    Ok(match (report.not_held, report.held) {
        (1.., _) => ExitCode::FAILURE,
        (0, 0) => ExitCode::from(NOTHING),
        (0, _) => ExitCode::SUCCESS,
    })
}

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn untried(error: &anyhow::Error) -> ExitCode {
    eprintln!("sandhold: nothing could be tested: {error:#}");
    ExitCode::from(NOTHING)
}

/// What was found of one vector.
#[derive(Default)]
struct Gathered {
    inside: Vec<(String, Found)>,
    controls: Vec<Found>,
}

type All = BTreeMap<String, Gathered>;

async fn prove(connected: &Connected) -> Result<Report> {
    let daemon = daemon::find()?;
    let host = Host::prepare(&daemon)
        .await
        .context("the host's side cannot be prepared")?;
    let vectors = all();
    let mut found = All::new();

    for place in [Place::Outside, Place::OwnNamespaces] {
        let facts = Facts {
            place,
            ..host.facts.clone()
        };
        for line in host
            .run(&facts)
            .await
            .context("the controls cannot be run on this host")?
        {
            found.entry(line.id).or_default().controls.push(line.found);
        }
    }

    let sandboxes = Sandboxes::make(connected, &daemon, &host.facts).await?;
    let proven = inside(&sandboxes, &vectors, &mut found).await;
    let host_side = host_side::rows(sandboxes.first(), &host).await;
    let after = sandboxes.first_answers().await;
    let told = sandboxes.told().clone();
    sandboxes.end().await;
    proven?;

    let mut rows: Vec<Row> = vectors.iter().map(|vector| row(vector, &found)).collect();
    rows.push(after);
    rows.extend(host_side);
    Ok(Report::new(told, rows))
}

/// Everything that is tried inside.
async fn inside(sandboxes: &Sandboxes, vectors: &[Listed], found: &mut All) -> Result<()> {
    let names = |kind: Kind| -> Vec<String> {
        let of_kind = vectors.iter().filter(|vector| vector.kind == kind);
        of_kind.map(|vector| vector.id.clone()).collect()
    };
    for user in sandboxes.users() {
        put(found, user, sandboxes.run(Who::First, user, Vec::new()).await?);
        put(
            found,
            user,
            sandboxes.run(Who::First, user, names(Kind::Neighbour)).await?,
        );
    }
    // At home there it must work.
    for line in sandboxes.run(Who::Second, "user", names(Kind::Neighbour)).await? {
        found.entry(line.id).or_default().controls.push(line.found);
    }
    for line in sandboxes.controls(names(Kind::Bomb)).await? {
        found.entry(line.id).or_default().controls.extend(line.control);
    }
    // One at a time: what a bomb takes along must not be another's line.
    for bomb in names(Kind::Bomb) {
        let ended = sandboxes.throw(&bomb).await;
        found.entry(bomb).or_default().inside.push(("user".to_owned(), ended));
    }
    Ok(())
}

fn put(found: &mut All, user: &str, lines: Vec<Line>) {
    for line in lines {
        let of = found.entry(line.id).or_default();
        of.inside.push((user.to_owned(), line.found));
        of.controls.extend(line.control);
    }
}

fn row(vector: &Listed, found: &All) -> Row {
    let nothing = Gathered::default();
    let gathered = found.get(&vector.id).unwrap_or(&nothing);
    let inside: Vec<(&str, &Found)> = gathered
        .inside
        .iter()
        .map(|(user, found)| (user.as_str(), found))
        .collect();
    let controls: Vec<&Found> = gathered.controls.iter().collect();
    let control = match vector.control {
        Control::Outside => "the same on the host",
        Control::Neighbour => "the same in the other sandbox",
        Control::Here => "a little of it, in the sandbox",
    };
    Row::new(
        vector.group,
        &vector.id,
        &vector.title,
        vector.expected,
        control,
        judge(&inside, &controls),
    )
}
