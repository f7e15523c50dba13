-- Residential buildings of accounts that the roll has. Kind, years and areas are columns of building_res; rooms are lines of fixtures; condition,
-- foundation and walls are lines of structural_elem1 (HCAD codebook, 24 February 2025). No roof is published for homes.
--
-- A type that a building has twice in fixtures counts once, and the last one wins. Lines of a table without a key have no order that would stay
-- when HCAD sorts its file anew, so the last is the largest. Fireplaces are of several kinds, which add up.
with counted as (
    select f.acct, f.bld_num, f.type, max(f.units) as units
      from {fixtures} f
     where f.type in ('RMB', 'RMF', 'RMH', 'STY')
        or f.type in (select d.code from {desc_r_05_building_data_elements} d where d.description ilike '%fireplace%')
     group by f.acct, f.bld_num, f.type
), room as (
    select acct, bld_num,
           max(units) filter (where type = 'RMB') as bedrooms,
           max(units) filter (where type = 'RMF') as full_baths,
           max(units) filter (where type = 'RMH') as half_baths,
           max(units) filter (where type = 'STY') as stories,
           sum(units) filter (where type not in ('RMB', 'RMF', 'RMH', 'STY')) as fireplaces
      from counted
     group by acct, bld_num
), element as (
    -- adj of a wall is its share: of several the largest is the building's.
    select distinct on (s.acct, s.bld_num, s.type) s.acct, s.bld_num, s.type, s.code, s.category_dscr
      from {structural_elem1} s
     where s.type in ('PCR', 'CDU', 'FND', 'XWR')
     order by s.acct, s.bld_num, s.type, s.adj desc nulls last, s.code desc nulls last, s.category_dscr
), built_of as (
    select acct, bld_num,
           max(code) filter (where type = 'PCR') as pcr, max(category_dscr) filter (where type = 'PCR') as pcr_dscr,
           max(code) filter (where type = 'CDU') as cdu, max(category_dscr) filter (where type = 'CDU') as cdu_dscr,
           max(code) filter (where type = 'FND') as fnd, max(category_dscr) filter (where type = 'FND') as fnd_dscr,
           max(code) filter (where type = 'XWR') as xwr, max(category_dscr) filter (where type = 'XWR') as xwr_dscr
      from element
     group by acct, bld_num
), building as (
    -- A number stands once for an account, as far as is known; of two the larger building counts.
    select distinct on (b.acct, b.bld_num) b.*
      from {building_res} b
     where exists (select 1 from {real_acct} r where r.acct = b.acct)
     order by b.acct, b.bld_num, b.heat_ar desc nulls last, b.gross_ar desc nulls last, b.dpr_val desc nulls last, b::text
)
select b.acct,
       b.bld_num,
       b.impr_tp as building_type,
       b.impr_mdl_cd as building_style,
       b.structure as building_class,
       b.qa_cd as quality_code,
       b.dscr as quality,
       coalesce(e.pcr, e.cdu) as condition_code,
       case when e.pcr is not null then e.pcr_dscr else e.cdu_dscr end as condition,
       nullif(b.date_erected, 0) as year_built,
       nullif(b.eff, 0) as effective_year,
       nullif(b.yr_remodel, 0) as year_remodeled,
       b.heat_ar as heat_area,
       coalesce(nullif(b.base_ar, 0), nullif(b.im_sq_ft, 0), nullif(b.act_ar, 0), b.base_ar) as base_area,
       b.gross_ar as gross_area,
       r.stories,
       e.fnd as foundation_code,
       e.fnd_dscr as foundation,
       e.xwr as exterior_wall_code,
       e.xwr_dscr as exterior_wall,
       trunc(r.bedrooms) as bedrooms,
       trunc(r.full_baths) as full_baths,
       trunc(r.half_baths) as half_baths,
       case when r.full_baths is not null or r.half_baths is not null
            then coalesce(r.full_baths, 0) + 0.5 * coalesce(r.half_baths, 0) end as bathrooms,
       trunc(r.fireplaces) as fireplaces,
       b.dpr_val as value
  from building b
  left join room r on r.acct = b.acct and r.bld_num = b.bld_num
  left join built_of e on e.acct = b.acct and e.bld_num = b.bld_num
